"""Voxels: what of a work area is free, occupied or unknown, from depth seen by any number of cameras."""

from __future__ import annotations

import torch
from torch import Tensor

from wam.contracts import expected
from wam.geometry.cameras import check_cameras, in_picture, project, unproject
from wam.geometry.grid import FREE, OCCUPIED, UNKNOWN, VoxelConfig
from wam.geometry.surface import THING


def rows_of(points: Tensor, grid: VoxelConfig) -> Tensor:
    """The flat index of the voxel that holds each point (..., 3); -1 outside the grid."""
    cell = ((points - points.new_tensor(grid.origin)) / grid.side).floor()
    counts = torch.tensor(grid.shape, device=points.device)
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
    pixels, reach = project(torch.from_numpy(grid.centres()).to(depth), intrinsics, extrinsics)
    seen = in_picture(pixels, reach, (height, width))
    column = pixels[..., 0].round().clamp(0, width - 1).long()
    row = pixels[..., 1].round().clamp(0, height - 1).long()
    met = depth.flatten(1).gather(1, row * width + column)
    margin = 0.5 * 3**0.5 * grid.side
    free = (seen & (met > 0) & (reach < met - margin)).any(0)
    fused = torch.where(free, FREE, UNKNOWN).to(torch.uint8)
    rows = rows_of(unproject(depth, intrinsics, extrinsics), grid)
    fused[rows[(depth.flatten(1) > 0) & (rows >= 0)]] = OCCUPIED
    return fused.reshape(*grid.shape)


def fuse_colours(pictures: Tensor, depth: Tensor, intrinsics: Tensor, extrinsics: Tensor, grid: VoxelConfig) -> Tensor:
    """Pictures (V, H, W, 3) uint8 that fit depth (V, H, W), with its cameras as for `fuse_depth` -> (X, Y, Z, 4) uint8: the
    mean colour of the pixels whose measured points a voxel holds, and THING where it holds any, else zeros."""
    if pictures.shape != (*depth.shape, 3):
        raise expected(
            f"pictures of shape {(*depth.shape, 3)}",
            got=tuple(pictures.shape),
            do="bring them to the size of the depth",
        )
    measured = torch.isfinite(depth) & (depth > 0)
    depth = torch.where(measured, depth, torch.zeros_like(depth)).to(intrinsics.dtype)
    rows = rows_of(unproject(depth, intrinsics, extrinsics), grid)
    met = measured.flatten(1) & (rows >= 0)
    total = torch.zeros(grid.count, 4, dtype=torch.float64)  # red, green, blue and how many
    total.index_add_(0, rows[met], torch.nn.functional.pad(pictures.flatten(1, 2)[met].double(), (0, 1), value=1.0))
    mean = (total[:, :3] / total[:, 3:].clamp_min(1)).round()
    known = THING * (total[:, 3:] > 0)
    return torch.cat([mean, known], dim=1).to(torch.uint8).reshape(*grid.shape, 4)
