"""What can be read from latents about the true motion: pure functions of arrays, fitted on one set and scored on another."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def r2(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Coefficient of determination of each column, (D,); NaN where the truth does not vary."""
    left = np.square(true - predicted).sum(axis=0)
    whole = np.square(true - true.mean(axis=0)).sum(axis=0)
    return np.where(whole > 1e-12, 1 - left / np.where(whole > 1e-12, whole, 1), np.nan)


def linear_probe(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, *, ridge: float = 1e-3, seed: int | None = None
) -> np.ndarray:
    """Ridge regression from x (N, D) to y (N, Y), and its prediction (M, Y) for x_test. seed: shuffle y first, a control."""
    if seed is not None:
        y = y[np.random.default_rng(seed).permutation(len(y))]
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    z, z_test = (x - mean) / scale, (x_test - mean) / scale
    left = y - y.mean(axis=0)
    if z.shape[1] <= len(z):
        weights = np.linalg.solve(z.T @ z + ridge * len(z) * np.eye(z.shape[1]), z.T @ left)
    else:  # the same by rows, where they are fewer than columns
        weights = z.T @ np.linalg.solve(z @ z.T + ridge * len(z) * np.eye(len(z)), left)
    return z_test @ weights + y.mean(axis=0)


def chosen_ridge(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> float:
    """The ridge that does best on a fifth of the groups (episodes) when fitted on the rest; for many inputs."""
    names = np.unique(groups)
    aside = np.isin(groups, np.random.default_rng(seed).permutation(names)[: max(1, len(names) // 5)])
    if aside.all() or not aside.any():
        return 1e-2
    scores = {
        ridge: np.nanmean(r2(linear_probe(x[~aside], y[~aside], x[aside], ridge=ridge), y[aside]))
        for ridge in (1e-2, 1.0, 10.0, 100.0)
    }
    return max(scores, key=lambda ridge: scores[ridge])


def mlp_probe(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, *, width: int = 64, steps: int = 600, seed: int = 0
) -> np.ndarray:
    """The same by a network with two hidden layers, of batches of 256 rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, y.shape[1])
        )
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    centre, spread = y.mean(axis=0), y.std(axis=0) + 1e-9
    inputs, wanted, asked = (
        torch.from_numpy(array.astype(np.float32))
        for array in ((x - mean) / scale, (y - centre) / spread, (x_test - mean) / scale)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    draws = np.random.default_rng(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        rows = torch.from_numpy(draws.integers(0, len(inputs), min(256, len(inputs))))
        loss = F.mse_loss(network(inputs[rows]), wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return network(asked).numpy() * spread + centre


def lookup_probe(keys: np.ndarray, y: np.ndarray, keys_test: np.ndarray) -> np.ndarray:
    """The mean y of the rows with the same key; the mean of all where there is none. keys (N,), y (N, Y)."""
    known, places = np.unique(keys, return_inverse=True)
    sums = np.zeros((len(known), y.shape[1]))
    np.add.at(sums, places, y)
    means = sums / np.bincount(places)[:, None]
    where = np.searchsorted(known, keys_test).clip(0, len(known) - 1)
    return np.where((known[where] == keys_test)[:, None], means[where], y.mean(axis=0))


def retrieval_cosine(
    latents: np.ndarray, motion: np.ndarray, scenes: np.ndarray, *, still: float, seed: int = 0
) -> tuple[float, float, int]:
    """The mean cosine between the motion of a window and that of the nearest latent among windows of other scenes; the same
    for a random one of them; and how many windows were asked about. Those that move less than `still` have no direction and
    are left out."""
    moving = np.linalg.norm(motion, axis=1) > still
    latents, motion, scenes = latents[moving], motion[moving], scenes[moving]
    if len(np.unique(scenes)) < 2:
        return float("nan"), float("nan"), 0
    z = (latents - latents.mean(axis=0)) / (latents.std(axis=0) + 1e-6)
    distance = np.square(z[:, None] - z[None]).sum(axis=-1) if len(z) <= 400 else _distances(z)
    distance[scenes[:, None] == scenes[None]] = np.inf
    draws = np.random.default_rng(seed)
    nearest = distance + draws.uniform(0, 1e-9, distance.shape)  # equal codes: any of them
    unit = motion / np.linalg.norm(motion, axis=1, keepdims=True)
    random = np.where(np.isfinite(distance), draws.uniform(size=distance.shape), np.inf)
    cosines = [(unit * unit[order.argmin(axis=1)]).sum(axis=1).mean() for order in (nearest, random)]
    return float(cosines[0]), float(cosines[1]), len(unit)


def _distances(z: np.ndarray) -> np.ndarray:
    squares = np.square(z).sum(axis=1)
    return np.maximum(squares[:, None] + squares[None] - 2 * z @ z.T, 0)
