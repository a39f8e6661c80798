"""How far each voxel is from what is filled."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wam.contracts import expected
from wam.geometry.grid import OCCUPIED, UNKNOWN


def truncated_distance(grid: Tensor, *, reach: float) -> tuple[Tensor, Tensor]:
    """Grids (..., X, Y, Z) uint8 -> the distance from each voxel's centre to that of the nearest filled one, as a share of
    `reach` voxels, 1 where none is nearer than that; and where this is sure (..., X, Y, Z) bool: wherever no unknown voxel,
    which may be filled, is nearer.

    Exact: squared distances are minimised along one axis after the other (Felzenszwalb and Huttenlocher 2012), here by
    looking no farther than the reach.
    """
    if reach <= 0:
        raise expected("a reach above 0 voxels", got=reach, do="set `model.occupancy.distance_reach`")
    filled = _squared(grid == OCCUPIED, reach)
    unknown = grid == UNKNOWN
    sure = torch.ones_like(unknown)
    if unknown.any():
        sure = ~unknown & (_squared(unknown, reach) >= filled)
    return filled.sqrt() / reach, sure


def _squared(marked: Tensor, reach: float) -> Tensor:
    """(..., X, Y, Z) bool -> the squared distance to the nearest marked voxel, at most reach**2."""
    far = reach**2
    found = torch.where(marked, 0.0, far)
    for axis in (-3, -2, -1):
        best = found.clone()
        for step in range(1, min(math.ceil(reach), marked.shape[axis])):
            near, away = (
                found.narrow(axis, 0, found.shape[axis] - step),
                found.narrow(axis, step, found.shape[axis] - step),
            )
            for here, other in (
                (best.narrow(axis, step, best.shape[axis] - step), near),
                (best.narrow(axis, 0, best.shape[axis] - step), away),
            ):
                torch.minimum(here, other + step**2, out=here)
        found = best
    return found
