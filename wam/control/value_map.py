"""Value maps: how dear every place of the work area is, as a cost that leads a chunk's way to where it is cheap.

    field = towards(goal, grid) + 2 * away_from(filled, grid, radius=0.06)
    cost = along(field, lagging(motion, start, velocity), fine=0.03)
    chunk = model.policy(batch, steering=Steering(cost=cost)).action

Source: VoxPoser (Huang et al. 2023) composes maps of what attracts and what repels, and plans through their sum; here the sum
steers the sampling of a learned policy, so that what the map leaves open stays the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wam.contracts import expected
from wam.control.ways import Way
from wam.geometry.distance import truncated_distance
from wam.geometry.grid import OCCUPIED, VoxelConfig
from wam.model.steering import Cost
from wam.model.wam import Sample


@dataclass(frozen=True)
class ValueMap:
    """values (X, Y, Z) at the centres of a grid's voxels. Maps of one grid add, and a number weighs one."""

    values: Tensor
    grid: VoxelConfig

    def __post_init__(self) -> None:
        if list(self.values.shape) != list(self.grid.shape) or not torch.isfinite(self.values).all():
            raise expected(
                f"finite values of shape {tuple(self.grid.shape)}",
                got=f"{tuple(self.values.shape)}, finite: {bool(torch.isfinite(self.values).all())}",
                do="give one for each voxel of the grid",
            )

    def at(self, points: Tensor) -> Tensor:
        """(..., 3) in the world -> (...), between the centres trilinear, with gradients; beyond the outermost centres as
        at the nearest place between them."""
        low = points.new_tensor(self.grid.origin) + self.grid.side / 2
        reach = self.grid.side * (points.new_tensor(self.grid.shape) - 1).clamp_min(1)
        where = (2 * (points - low) / reach - 1).reshape(1, -1, 1, 1, 3).flip(-1)  # torch wants the last axis first
        values = self.values.to(points)[None, None]
        found = F.grid_sample(values, where, padding_mode="border", align_corners=True)
        return found.reshape(points.shape[:-1])

    def __add__(self, other: ValueMap) -> ValueMap:
        if other.grid != self.grid:
            raise expected("maps of one grid", got=f"{self.grid} and {other.grid}", do="make both over the same")
        return ValueMap(self.values + other.values, self.grid)

    def __mul__(self, weight: float) -> ValueMap:
        return ValueMap(weight * self.values, self.grid)

    __rmul__ = __mul__


def towards(goal: Sequence[float], grid: VoxelConfig) -> ValueMap:
    """Metres from each place to the goal (3,) in the world."""
    centres = torch.from_numpy(grid.centres()).float()
    away = torch.linalg.vector_norm(centres - torch.tensor([float(x) for x in goal]), dim=-1)
    return ValueMap(away.reshape(grid.shape), grid)


def away_from(filled: Tensor, grid: VoxelConfig, *, radius: float) -> ValueMap:
    """Metres by which a place is nearer than `radius` to what is filled (X, Y, Z) bool, and farther in inside of it: 0 out of
    reach, `radius` on the surface's voxels, and up to another radius more towards the middle of thick things."""
    if filled.dtype != torch.bool:
        raise expected(
            "a grid (X, Y, Z) of bool", got=filled.dtype, do="say from which chance on a voxel counts as filled"
        )
    voxels = radius / grid.side
    outside, _ = truncated_distance(filled * OCCUPIED, reach=voxels)
    inside, _ = truncated_distance(~filled * OCCUPIED, reach=voxels)
    return ValueMap(radius * (1 - outside + inside), grid)


def along(field: ValueMap, way: Way, *, fine: float = 0.0, end: bool = False) -> Cost:
    """The sum over the steps of a way, and over the middles between them, of what the map is above `fine` there, or only what
    it is at its end. 0, and no reason to move any more, where no place is dearer than that.

    The middles keep a chunk from striding over what is filled; a hand that moves more than two voxels a step still may."""

    def cost(sample: Sample) -> Tensor:
        if sample.action is None:
            raise expected("a sample with an action", got="none", do="want the action")
        points = way(sample.action)
        looked = points[:, -1:] if end else torch.cat([points, (points[:, 1:] + points[:, :-1]) / 2], dim=1)
        return (field.at(looked) - fine).clamp_min(0).sum(1)

    return cost
