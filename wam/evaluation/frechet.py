"""Fréchet distance between two sets of videos (Dowson and Landau, 1982), with an extractor that has a name and a hash.

A Fréchet distance is a figure only together with its protocol: extractor, its weights, number and length of videos,
stride, resizing. So each result carries a record of them, and its hash. It is called `fvd` only if the features come
from an I3D network (Unterthiner et al., 2018); otherwise it is named after the extractor, such as `frechet_randconv`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wam.contracts import expected


class FeatureExtractor(Protocol):
    """Videos (N, T, H, W, C) float in [0, 1] to features (N, D). label: the name of the distance built on it."""

    @property
    def label(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def resize(self) -> int | None: ...

    def __call__(self, videos: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class FrechetResult:
    """The distance under its honest label. biased: fewer videos than features, so that small differences mean nothing."""

    label: str
    value: float
    biased: bool
    protocol: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def gaussian_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Squared Fréchet distance of two Gaussians, |m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2).

    The symmetric form needs only eigenvalues of symmetric matrices, so it stays real where sqrtm does not.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    distance = np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    return float(max(distance, 0.0))


def features_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance between two sets of features (N, D) and (M, D)."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise expected(
            "two sets of at least 2 feature vectors of one length", got=f"{a.shape} and {b.shape}", do="add videos"
        )
    moments = [
        (x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (a.astype(np.float64), b.astype(np.float64))
    ]
    return gaussian_distance(*moments[0], *moments[1])


def frechet_distance(
    predicted: np.ndarray,
    real: np.ndarray,
    *,
    extractor: FeatureExtractor | None = None,
    stride: int = 1,
    batch_size: int = 32,
) -> FrechetResult:
    """Distance between predicted and real videos (N, T, H, W, C), floats in [0, 1]; every `stride`-th frame is used."""
    extractor = extractor if extractor is not None else RandomConvolutions()
    for name, videos in (("predicted", predicted), ("real", real)):
        if videos.ndim != 5 or videos.dtype == np.uint8:
            raise expected(f"{name} float videos (N, T, H, W, C)", got=f"{videos.dtype} {videos.shape}", do="convert")
    sets = [
        np.concatenate([extractor(x[i : i + batch_size, ::stride]) for i in range(0, len(x), batch_size)])
        for x in (predicted, real)
    ]
    protocol = {
        "extractor": extractor.name,
        "weights_sha256": extractor.sha256,
        "n": [len(predicted), len(real)],
        "frames": int(real[:, ::stride].shape[1]),
        "stride": stride,
        "size": list(real.shape[2:4]),
        "resize": extractor.resize,
        "features": int(sets[0].shape[1]),
    }
    protocol["sha256"] = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()
    return FrechetResult(
        label=extractor.label,
        value=features_distance(*sets),
        biased=min(len(predicted), len(real)) <= sets[0].shape[1],
        protocol=protocol,
    )


class RandomConvolutions:
    """Deterministic random convolutions over space, with differences over time: no download, the same everywhere.

    Random features tell gross differences (blur, noise, a frozen film) and nothing about meaning; the figure compares
    runs of this project with each other and with nothing else. Weights come from NumPy's PCG64, fixed by its definition.
    """

    name = "randconv-3x3-s2-relu-x3"
    label = "frechet_randconv"
    resize: int | None = None

    def __init__(self, *, width: int = 16, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        channels = [3, width, width, width]
        self.weights = [
            rng.standard_normal((b, a, 3, 3)).astype(np.float32) * np.float32((2 / (9 * a)) ** 0.5)
            for a, b in itertools.pairwise(channels)
        ]
        self.sha256 = hashlib.sha256(b"".join(w.tobytes() for w in self.weights)).hexdigest()

    def __call__(self, videos: np.ndarray) -> np.ndarray:
        """(N, T, H, W, 3) to (N, 3 width): mean, spread over space, and mean absolute change over time."""
        import torch
        from einops import rearrange

        if videos.shape[-1] != 3:
            raise expected("videos of 3 channels", got=videos.shape[-1], do="give RGB frames")
        x = torch.from_numpy(np.ascontiguousarray(videos, dtype=np.float32)) - 0.5
        n = len(x)
        x = rearrange(x, "n t h w c -> (n t) c h w")
        with torch.no_grad():
            for weight in self.weights:
                x = torch.relu(torch.nn.functional.conv2d(x, torch.from_numpy(weight), stride=2, padding=1))
        x = rearrange(x, "(n t) c h w -> n t c (h w)", n=n)
        change = (x[:, 1:] - x[:, :-1]).abs().mean((1, 3)) if x.shape[1] > 1 else torch.zeros_like(x[:, 0, :, 0])
        return torch.cat([x.mean((1, 3)), x.std(3, unbiased=False).mean(1), change], 1).numpy()


class TorchScriptFeatures:
    """A feature network given as a TorchScript file: videos (N, 3, T, H, W) in [-1, 1] to (N, D).

    The distance is called `fvd` only if the file holds I3D's layers and gives its 400 outputs; else it is named after
    the file.
    """

    def __init__(self, path: str | Path, *, resize: int | None = 224) -> None:
        import torch

        path = Path(path)
        if not path.is_file():
            raise expected(f"a TorchScript network at {path}", got="no file", do="give the file of an extractor")
        try:
            self.network = torch.jit.load(str(path), map_location="cpu").eval()
        except RuntimeError as error:
            raise expected(f"a TorchScript network at {path}", got="another format", do="export it again") from error
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.name = path.stem
        self.resize = resize
        layers = {part.lower() for name in self.network.state_dict() for part in name.split(".")}
        self.is_i3d = {"conv3d_1a_7x7", "mixed_3b", "mixed_4f", "mixed_5c"} <= layers
        self.label = "fvd" if self.is_i3d else f"frechet_{self.name}"

    def __call__(self, videos: np.ndarray) -> np.ndarray:
        import torch
        from einops import rearrange

        x = rearrange(torch.from_numpy(np.ascontiguousarray(videos, dtype=np.float32)), "n t h w c -> n c t h w")
        if self.resize is not None:
            size = (x.shape[2], self.resize, self.resize)
            x = torch.nn.functional.interpolate(x, size=size, mode="trilinear", align_corners=False)
        with torch.no_grad():
            features = self.network(x * 2 - 1)
        if features.ndim != 2 or (self.is_i3d and features.shape[1] != 400):
            raise expected(
                "features of shape (N, D), 400 of them from I3D", got=tuple(features.shape), do="export its logits"
            )
        return features.numpy()
