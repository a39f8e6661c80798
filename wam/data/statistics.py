"""Statistics of features: of an episode, merged over episodes, or exactly over a store, never decoding video."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wam.contracts import expected

if TYPE_CHECKING:
    from wam.data.store import EpisodeStore

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
SAMPLED_FRAMES = 32  # frames of an episode that its image statistics look at
EXACT_VALUES = 20_000_000  # a column with more values has its quantiles taken from evenly spaced rows


@dataclass(frozen=True, kw_only=True)
class FeatureStatistics:
    """One array per statistic, of the shape of one frame (images: (3, 1, 1), in [0, 1]); count holds the frames."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q10: np.ndarray
    q50: np.ndarray
    q90: np.ndarray
    q99: np.ndarray
    count: int

    @classmethod
    def of(cls, values: np.ndarray) -> FeatureStatistics:
        """values (T, ...) -> statistics over T; the quantiles are exact up to EXACT_VALUES numbers."""
        if len(values) == 0:
            raise expected("at least one value", got="none", do="leave the feature out")
        values = values.astype(np.float64).reshape(len(values), *(values.shape[1:] or (1,)))
        step = 1 + (values.size - 1) // EXACT_VALUES
        quantiles = np.quantile(values[::step], list(QUANTILES.values()), axis=0)
        return cls(
            min=values.min(0),
            max=values.max(0),
            mean=values.mean(0),
            std=values.std(0),
            count=len(values),
            **dict(zip(QUANTILES, quantiles, strict=True)),
        )

    @classmethod
    def of_images(cls, frames: np.ndarray) -> FeatureStatistics:
        """frames (T, H, W, 3) uint8 -> (3, 1, 1) statistics in [0, 1]; count = the frames looked at."""
        rows = np.unique(np.linspace(0, len(frames) - 1, SAMPLED_FRAMES).round().astype(int))
        pixels = frames[rows].reshape(-1, 3)
        levels = np.arange(256) / 255
        counts = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
        shares, reached = counts / len(pixels), np.cumsum(counts, axis=1) / len(pixels)
        mean = shares @ levels
        found = {
            "min": levels[(counts > 0).argmax(1)],
            "max": levels[255 - (counts[:, ::-1] > 0).argmax(1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0)),
            **{name: levels[(reached >= share).argmax(1)] for name, share in QUANTILES.items()},
        }
        return cls(count=len(rows), **{name: value.reshape(3, 1, 1) for name, value in found.items()})

    @classmethod
    def of_depth(cls, depth: np.ndarray) -> FeatureStatistics:
        """depth (T, H, W) metres -> (1, 1, 1) statistics in metres of what was measured; count = the frames looked at."""
        rows = np.unique(np.linspace(0, len(depth) - 1, SAMPLED_FRAMES).round().astype(int))
        values = depth[rows]
        values = values[np.isfinite(values) & (values > 0)]
        found = cls.of(values[:, None, None, None] if len(values) else np.zeros((1, 1, 1, 1)))
        return replace(found, count=len(rows))

    def to_json(self) -> dict[str, Any]:
        return {**{name: getattr(self, name).tolist() for name in ARRAYS}, "count": [self.count]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FeatureStatistics:
        """Quantiles that the file lacks are approximated by min, mean and max."""
        arrays = {name: np.asarray(data[name], np.float64) for name in ARRAYS if name in data}
        spare = {"q01": "min", "q10": "min", "q50": "mean", "q90": "max", "q99": "max"}
        for name, instead in spare.items():
            arrays.setdefault(name, arrays[instead])
        return cls(count=int(np.asarray(data.get("count", 0)).reshape(-1)[0]), **arrays)


ARRAYS = tuple(field.name for field in fields(FeatureStatistics) if field.name != "count")


class Statistics(Mapping[str, FeatureStatistics]):
    """feature name -> FeatureStatistics."""

    def __init__(self, features: Mapping[str, FeatureStatistics]) -> None:
        self._features = dict(features)

    def __getitem__(self, name: str) -> FeatureStatistics:
        if name not in self._features:
            raise expected(f"statistics of one of {sorted(self._features)}", got=repr(name), do="name one of them")
        return self._features[name]

    def __contains__(self, name: object) -> bool:
        return name in self._features

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)

    def to_json(self) -> dict[str, Any]:
        return {name: feature.to_json() for name, feature in self._features.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Statistics:
        try:
            return cls({name: FeatureStatistics.from_json(feature) for name, feature in data.items()})
        except (KeyError, TypeError, ValueError) as error:
            raise expected(
                "min, max, mean and std of each feature", got=repr(error), do="compute them again with `wam data stats`"
            ) from error

    @classmethod
    def load(cls, path: Path | str) -> Statistics:
        try:
            return cls.from_json(json.loads(Path(path).read_text()))
        except (OSError, ValueError, AttributeError) as error:
            raise expected(
                f"statistics at {path}", got=str(error), do="compute them again with `wam data stats`"
            ) from error


def merge(parts: Iterable[Statistics]) -> Statistics:
    """Statistics of several sets together. Exact but for the quantiles, which are means weighted by count."""
    found: dict[str, list[FeatureStatistics]] = {}
    for part in parts:
        for name, feature in part.items():
            found.setdefault(name, []).append(feature)
    return Statistics({name: _merge(name, features) for name, features in found.items()})


def _merge(name: str, parts: list[FeatureStatistics]) -> FeatureStatistics:
    if len(shapes := {part.mean.shape for part in parts}) > 1:
        raise expected(f"one shape of feature {name!r}", got=sorted(shapes), do="merge only datasets of one layout")
    weights = np.array([part.count for part in parts], np.float64)
    weights = weights / weights.sum() if weights.sum() else np.full(len(parts), 1 / len(parts))

    def weighted(values: list[np.ndarray]) -> np.ndarray:
        return np.tensordot(weights, np.stack(values), 1)

    mean = weighted([part.mean for part in parts])
    variance = weighted([part.std**2 + (part.mean - mean) ** 2 for part in parts])
    return FeatureStatistics(
        min=np.min([part.min for part in parts], axis=0),
        max=np.max([part.max for part in parts], axis=0),
        mean=mean,
        std=np.sqrt(variance),
        count=sum(part.count for part in parts),
        **{name: weighted([getattr(part, name) for part in parts]) for name in QUANTILES},
    )


def compute_statistics(store: EpisodeStore, *, episodes: Iterable[int] | None = None) -> Statistics:
    """Statistics of a store's numbers, quantiles exact, and of its images as recorded with the episodes, if they were.

    Reads one column at a time and no video. episodes: which ones (default all).
    """
    chosen = list(range(len(store))) if episodes is None else list(episodes)
    if not chosen:
        raise expected("at least one episode", got="none", do="choose some episodes")
    found: dict[str, FeatureStatistics] = {}
    for name in store.info.numeric:
        values = np.concatenate([store.column(name, episode) for episode in chosen])
        if not np.isfinite(values).all():
            raise expected(f"finite values of {name!r}", got="NaN or infinity", do="find them with `wam data doctor`")
        found[name] = FeatureStatistics.of(values)
    images = merge(store.image_statistics(episode) for episode in chosen)
    return Statistics(found | dict(images))
