"""How well predicted voxels agree with true ones: overlap, and distances between their surfaces.

Grids are (N, X, Y, Z) bool; known, of the same shape, is True where the truth is known and so counts. Overlap is summed over
all grids before it is divided, so that a grid with little in it does not weigh as much as a full one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wam.contracts import expected


def iou(predicted: Tensor, truth: Tensor, known: Tensor | None = None) -> float:
    """Intersection over union of what is filled; nan where nothing is filled on either side."""
    _check(predicted, truth)
    both, either = predicted & truth, predicted | truth
    if known is not None:
        both, either = both & known, either & known
    union = int(either.sum())
    return int(both.sum()) / union if union else float("nan")


def changed(truth: Tensor, present: Tensor, known: Tensor | None = None, *, grow: int = 1) -> Tensor:
    """Where a future grid differs from the present one, and `grow` voxels around.

    On the differing voxels alone, a copy of the present overlaps nothing by construction, and every ratio to it is
    infinite; around them, what stayed counts for the copy."""
    _check(present, truth)
    differs = truth != present
    if grow:
        size = 2 * grow + 1
        differs = F.max_pool3d(differs[:, None].float(), size, stride=1, padding=grow)[:, 0].bool()
    return differs if known is None else differs & known


def mean_iou(predicted: Tensor, truth: Tensor, *, classes: int, known: Tensor | None = None) -> float:
    """Grids of class numbers (N, X, Y, Z): the mean over classes that occur on either side; 0 is free and not counted."""
    _check(predicted, truth)
    found = [iou(predicted == c, truth == c, known) for c in range(1, classes)]
    there = [value for value in found if value == value]
    return sum(there) / len(there) if there else float("nan")


@dataclass(frozen=True, kw_only=True)
class Distances:
    """chamfer: metres, the mean distance to the nearest filled voxel, from the prediction and from the truth, averaged.
    f_scores: by threshold in metres. count: grids in which both sides hold something; others are left out."""

    chamfer: float
    f_scores: dict[float, float]
    count: int


def distances(
    predicted: Tensor, truth: Tensor, *, side: float, within: tuple[float, ...] = (0.01, 0.02, 0.05)
) -> Distances:
    """Between the centres of filled voxels of `side` metres, mean over grids."""
    _check(predicted, truth)
    chamfers, scores = [], []
    for ours, theirs in zip(predicted, truth, strict=True):
        a, b = ours.nonzero().float() * side, theirs.nonzero().float() * side
        if not len(a) or not len(b):
            continue
        apart = torch.cdist(a, b)
        to_truth, to_prediction = apart.amin(1), apart.amin(0)
        chamfers.append(((to_truth.mean() + to_prediction.mean()) / 2).item())
        found = []
        for threshold in within:
            precision, recall = ((x <= threshold + 1e-6).float().mean().item() for x in (to_truth, to_prediction))
            found.append(2 * precision * recall / max(precision + recall, 1e-12))
        scores.append(found)
    count = len(chamfers)
    means = [sum(column) / count for column in zip(*scores, strict=True)] if count else [float("nan")] * len(within)
    return Distances(
        chamfer=sum(chamfers) / count if count else float("nan"),
        f_scores=dict(zip(within, means, strict=True)),
        count=count,
    )


def _check(predicted: Tensor, truth: Tensor) -> None:
    if predicted.shape != truth.shape or predicted.ndim != 4:
        raise expected(
            "two grids of one shape (N, X, Y, Z)",
            got=f"{tuple(predicted.shape)} and {tuple(truth.shape)}",
            do="give the same frames of the same grid",
        )
