"""Voxel grids: what of a work area is free, occupied or unknown, from depth seen by any number of cameras."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from wam.contracts import expected
from wam.geometry.cameras import check_cameras, in_picture, project, unproject

FREE, OCCUPIED, UNKNOWN = 0, 1, 2


@dataclass(kw_only=True)
class VoxelConfig:
    """A grid of X Y Z voxels, each a cube of `side` metres; origin: its lowest corner in the world, metres.

    The default covers the part of Meta-World's table that its hand reaches.
    """

    shape: list[int] = field(default_factory=lambda: [32, 32, 24])
    origin: list[float] = field(default_factory=lambda: [-0.4, 0.4, -0.02])
    side: float = 0.025

    def validate(self) -> None:
        if len(self.shape) != 3 or len(self.origin) != 3 or min(self.shape) < 1 or self.side <= 0:
            raise expected(
                "a grid of three counts and three metres with voxels of positive size",
                got=f"shape {self.shape}, origin {self.origin}, side {self.side}",
                do="correct the grid",
            )

    @property
    def count(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def centres(self, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
        """(X * Y * Z, 3) in the world."""
        axes = [
            low + self.side * (torch.arange(count, dtype=dtype, device=device) + 0.5)
            for low, count in zip(self.origin, self.shape, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)

    def rows(self, points: Tensor) -> Tensor:
        """The flat index of the voxel that holds each point (..., 3); -1 outside the grid."""
        cell = ((points - points.new_tensor(self.origin)) / self.side).floor()
        counts = torch.tensor(self.shape, device=points.device)
        inside = ((cell >= 0) & (cell < counts)).all(-1)
        x, y, z = torch.where(inside[..., None], cell, torch.zeros_like(cell)).long().unbind(-1)
        return torch.where(inside, (x * counts[1] + y) * counts[2] + z, -1)


def fuse_depth(depth: Tensor, intrinsics: Tensor, extrinsics: Tensor, grid: VoxelConfig) -> Tensor:
    """Depth (V, H, W) of one instant with its cameras (V, 3, 3) and (V, 4, 4) -> the grid (X, Y, Z) uint8.

    A voxel that holds a measured point is occupied. Of the others, one is free if a camera looked through it: its centre
    lies on a ray, nearer than what the ray met by at least half the voxel's diagonal. What no ray passed is unknown.
    """
    if depth.ndim != 3 or intrinsics.shape[0] != depth.shape[0] or extrinsics.shape[0] != depth.shape[0]:
        raise expected(
            "depth (V, H, W) with as many intrinsics and extrinsics",
            got=f"{tuple(depth.shape)}, {tuple(intrinsics.shape)} and {tuple(extrinsics.shape)}",
            do="give one camera for each depth picture",
        )
    grid.validate()
    check_cameras(intrinsics, extrinsics)
    depth = torch.where(torch.isfinite(depth), depth, torch.zeros_like(depth)).to(intrinsics.dtype)
    height, width = depth.shape[1:]
    pixels, reach = project(grid.centres(dtype=depth.dtype, device=depth.device), intrinsics, extrinsics)
    seen = in_picture(pixels, reach, (height, width))
    column = pixels[..., 0].round().clamp(0, width - 1).long()
    row = pixels[..., 1].round().clamp(0, height - 1).long()
    met = depth.flatten(1).gather(1, row * width + column)
    margin = 0.5 * 3**0.5 * grid.side
    free = (seen & (met > 0) & (reach < met - margin)).any(0)
    fused = torch.where(free, FREE, UNKNOWN).to(torch.uint8)
    rows = grid.rows(unproject(depth, intrinsics, extrinsics))
    fused[rows[(depth.flatten(1) > 0) & (rows >= 0)]] = OCCUPIED
    return fused.reshape(*grid.shape)
