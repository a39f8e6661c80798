"""The windows a run trains on: demonstrations and play of every dataset of the config, and a few held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wam.contracts import Batch, expected
from wam.data.features import ACTION, STATE
from wam.data.labels import OCCUPANCY, Labels
from wam.data.latents import LatentFiles
from wam.data.mixture import Mixture
from wam.data.splits import split_episodes, task_of
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec
from wam.geometry.grid import VoxelConfig
from wam.model.config import ModelConfig
from wam.model.normalize import Normalizer
from wam.training.config import DataConfig, DataPart, TrainConfig

CHECK_WINDOWS = 48
HIDDEN = ""
"""The name of no column: a window spec that reads it has no such stream."""


def window_spec(config: TrainConfig) -> WindowSpec:
    m = config.model
    voxels = m.occupancy.loss_weight > 0
    return WindowSpec(
        history=m.history,
        history_stride=m.history_stride,
        future=tuple(m.future),
        chunk=m.chunk,
        cameras=tuple(config.data.cameras),
        image_size=m.image_size,
        occupancy=voxels,
        colour=voxels and m.occupancy.colour_weight > 0,
        geometry=voxels,
    )


def training_episodes(store: EpisodeStore, part: DataPart, data: DataConfig) -> list[int]:
    """The episodes of one dataset that are trained on."""
    train, _ = split_episodes(store, held_out_share=data.held_out, seed=data.split_seed)
    return some_of_each_task(store, train, skip=part.skip, take=part.take)


def open_part(
    part: DataPart, data: DataConfig, spec: WindowSpec, latents: LatentFiles | None = None
) -> tuple[list[tuple[WindowDataset, float, str]], Batch | None]:
    """Training windows of one dataset, demonstrations and play apart, and a few held-out ones (play if there is any), whose
    pictures are always there."""
    store = EpisodeStore(part.root)
    name = part.name or Path(part.root).name
    train = training_episodes(store, part, data)
    held_out = split_episodes(store, held_out_share=data.held_out, seed=data.split_seed)[1]
    random = [i for i in train if store.episodes[i].play]
    expert = [i for i in train if not store.episodes[i].play]
    share = part.play_share
    if share is None:
        frames = [sum(store.episodes[i].length for i in kind) for kind in (expert, random)]
        share = frames[1] / max(1, sum(frames))
    weights = {"": (expert, 1 - share), "-play": (random, share)}
    if part.hide_actions:
        spec = replace(spec, action=HIDDEN, state=HIDDEN)
    parts = [
        (
            WindowDataset(store, spec, episodes=episodes, cache=data.cache, latents=latents),
            part.weight * weight,
            name + ending,
        )
        for ending, (episodes, weight) in weights.items()
        if episodes and weight > 0
    ]
    aside = [i for i in held_out if store.episodes[i].play] or held_out
    if not aside:
        return parts, None
    windows = WindowDataset(store, replace(spec, pictures=True), episodes=aside[:8], cache="memory")
    chosen = np.unique(np.linspace(0, len(windows) - 1, CHECK_WINDOWS).astype(int))
    return parts, windows.batch(chosen)


def some_of_each_task(store: EpisodeStore, episodes: Sequence[int], *, skip: int, take: int) -> list[int]:
    """Of each task's episodes, those from `skip` to `skip + take` (0: to the last), in their order."""
    seen: dict[str, int] = {}
    chosen = []
    for i in episodes:
        task = task_of(store.episodes[i])
        number = seen.get(task, 0)
        seen[task] = number + 1
        if number >= skip and (not take or number < skip + take):
            chosen.append(i)
    if not chosen:
        raise expected(
            f"episodes of {store.root} after the first {skip} of each task",
            got=f"at most {max(seen.values(), default=0)} training episodes a task",
            do="lower data.parts[].skip, or collect more",
        )
    return chosen


def make_mixture(
    config: TrainConfig, *, latents: LatentFiles | None = None, pictures: bool = True
) -> tuple[Mixture, Batch | None]:
    """The mixture a config names, and a few held-out windows. latents: given with its windows; pictures: given too."""
    if not config.data.parts:
        raise expected("at least one dataset", got="none", do="set data.parts, e.g. `data.parts=[{root: FOLDER}]`")
    spec = replace(window_spec(config), pictures=pictures)
    opened = [open_part(part, config.data, spec, latents) for part in config.data.parts]
    mixture = Mixture([one for parts, _ in opened for one in parts])
    return mixture, next((aside for _, aside in opened if aside is not None), None)


def fit_dimensions(model: ModelConfig, stores: Sequence[EpisodeStore]) -> None:
    """Set the sizes of actions and states from the widest of the datasets, and split the state by its names."""
    names: list[str] = []
    for name, key in (("action", ACTION), ("state", STATE)):
        found = [store.info.features[key] for store in stores if key in store.info.features]
        if found:
            widest = max(found, key=lambda feature: feature.shape[0])
            setattr(model, f"{name}_dim", widest.shape[0])
            names = flat_names(widest.names)
    split_state(model, names)


def fit_grid(model: ModelConfig, stores: Sequence[EpisodeStore]) -> None:
    """Set the grid of a model with voxels from the datasets' labels, which must be of one grid."""
    if not model.occupancy.loss_weight:
        return
    grids = [Labels(store.root, OCCUPANCY).about["grid"] for store in stores]
    if any(grid != grids[0] for grid in grids):
        raise expected("occupancy labels of one grid", got=grids, do="label the datasets with the same grid")
    model.occupancy.grid = VoxelConfig(**grids[0])


def split_state(model: ModelConfig, names: Sequence[str]) -> None:
    """Give the model's velocity stream the columns of the state that are named so ("vel"), and its state stream the others.
    A model of data without any has no velocity stream. Columns that the config names stay."""
    velocity = model.streams.get("velocity")
    if velocity is None or velocity.columns:
        return
    fast = [column for column, name in enumerate(names) if "vel" in name.lower()]
    if not fast or len(fast) == len(names):
        del model.streams["velocity"]
        return
    velocity.columns = fast
    if "state" in model.streams and not model.streams["state"].columns:
        model.streams["state"].columns = [column for column in range(len(names)) if column not in fast]


def flat_names(names: Any) -> list[str]:
    """The names of a feature, which some datasets group in a mapping; empty where they have none."""
    if isinstance(names, Mapping):
        return [name for group in names.values() for name in flat_names(group)]
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


class HasNormalizers(Protocol):
    def normalizer(self, name: str) -> Normalizer: ...


def fit_normalizers(model: HasNormalizers, datasets: Sequence[WindowDataset]) -> None:
    """Actions to [-1, 1] by their 1st and 99th percentiles, states to unit variance, from the statistics of the largest
    dataset that has every dimension."""
    for name, key in (("action", "action"), ("state", "observation.state")):
        dim = model.normalizer(name).center.shape[0]
        owners = [d for d in datasets if getattr(d, f"{name}_dim") == dim]
        if not owners:
            continue
        s = max(owners, key=len).store.statistics[key]
        if name == "action":
            low, high = np.ravel(s.q01), np.ravel(s.q99)
            center, scale = (low + high) / 2, (high - low) / 2
        else:
            center, scale = np.ravel(s.mean), np.ravel(s.std)
        model.normalizer(name).fit(center.tolist(), scale.tolist())


def action_chunks(datasets: Sequence[WindowDataset], chunk: int, *, most: int = 4096) -> np.ndarray:
    """Chunks (N, K, A) of demonstrated actions, in their own units, spread evenly over the episodes; `most` at most."""
    found: list[np.ndarray] = []
    for dataset in datasets:
        if dataset.action_dim is None:
            continue
        for episode in dataset.episodes:
            if episode.play:
                continue
            actions = np.asarray(dataset.store.column(dataset.spec.action, episode), dtype=np.float32)
            found += [
                actions[start : start + chunk] for start in range(0, len(actions) - chunk + 1, max(1, chunk // 2))
            ]
    if not found:
        raise expected(
            f"demonstrations of {chunk} steps or more to fit action tokens to",
            got="none",
            do="shorten `model.chunk`, or set model.action_tokens.kind=bins",
        )
    kept = np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)
    return np.stack([found[i] for i in kept])
