"""Voxels read off a video stream's features: each cell of a coarse grid looks where its points fall in every picture.

Source: projecting voxel queries into camera features follows RoboMM (Yan et al. 2024) and BEV perception before it; here the
features are those of the joint model's present and imagined frames, so that the grid can be of the future.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import expected
from wam.geometry.cameras import check_cameras, in_picture, project
from wam.geometry.grid import VoxelConfig


class VoxelDecoder(nn.Module):
    """Features (B, T, C, h, w) of pictures that join all views, with cameras, -> logits (B, T * frames, X, Y, Z).

    A cell of cell x cell x cell voxels samples the features at 2 x 2 x 2 points in each view, and is told how far each point
    lies from the camera and whether it is in the picture. Views that are missing are left out of the mean over views; a
    learned place for each cell says what is usually there. frames: grids printed for each of the T (of a tubelet).
    """

    points: Tensor

    def __init__(
        self,
        grid: VoxelConfig,
        *,
        channels: int,
        views: int,
        condition_width: int,
        image_size: int,
        width: int = 96,
        narrow: int = 16,
        cell: int = 4,
        frames: int = 1,
    ) -> None:
        super().__init__()
        grid.validate()
        if any(count % cell for count in grid.shape):
            raise expected(f"a grid whose counts {cell} divides", got=grid.shape, do="change the grid's shape")
        self.grid, self.cell, self.frames, self.image_size, self.views = grid, cell, frames, image_size, views
        self.cells = [count // cell for count in grid.shape]
        half = VoxelConfig(shape=[2 * n for n in self.cells], origin=list(grid.origin), side=grid.side * cell / 2)
        points = rearrange(
            torch.from_numpy(half.centres()).float().reshape(*half.shape, 3),
            "(x i) (y j) (z k) c -> (x y z i j k) c",
            i=2,
            j=2,
            k=2,
        )
        self.register_buffer("points", points, persistent=False)
        self.narrow = nn.Conv2d(channels, narrow, 1)
        self.read = nn.ModuleList(nn.Linear(8 * (narrow + 2), width) for _ in range(views))
        self.place = nn.Parameter(0.02 * torch.randn(math.prod(self.cells), width))
        self.blocks = nn.ModuleList(_CellBlock(width, condition_width=condition_width) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, frames * cell**3)

    def forward(
        self,
        features: Tensor,
        condition: Tensor,
        *,
        intrinsics: Tensor,
        extrinsics: Tensor,
        view_mask: Tensor | None = None,
    ) -> Tensor:
        """condition (B, 1 or T, condition width), already through its activation; intrinsics (B, V, 3, 3) of pictures of
        image_size, extrinsics (B, V, 4, 4), view_mask (B, V) bool."""
        B, T = features.shape[:2]
        self._check(B, intrinsics, extrinsics, view_mask)
        with torch.autocast(features.device.type, enabled=False):  # metres and pixels want more than eight bits
            pixels, depth = project(self.points, intrinsics.float(), extrinsics.float())
        seen = in_picture(pixels, depth, (self.image_size, self.image_size))
        narrowed = self.narrow(features.flatten(0, 1))
        h = features.new_zeros(())
        shown = seen.new_ones(B, self.views) if view_mask is None else view_mask
        for v, read in enumerate(self.read):
            where = ((pixels[:, v] + 0.5) / self.image_size * 2 - 1).repeat_interleave(T, 0)
            found = F.grid_sample(narrowed, where[:, :, None].to(narrowed.dtype), align_corners=False)[..., 0]
            told = torch.stack([depth[:, v], torch.ones_like(depth[:, v])], dim=1).repeat_interleave(T, 0)
            told = torch.cat([found, told.to(found.dtype)], dim=1) * seen[:, v].repeat_interleave(T, 0)[:, None]
            token = F.silu(read(rearrange(told, "b c (p i) -> b p (i c)", i=8)))
            h = h + token * (shown[:, v] / shown.sum(1).clamp_min(1)).repeat_interleave(T, 0)[:, None, None]
        h = h + self.place
        condition = condition.expand(-1, T, -1).flatten(0, 1)
        for block in self.blocks:
            h = block(h, condition, self.cells)
        x, y, z = self.cells
        return rearrange(
            self.out(self.norm(h)),
            "(b t) (x y z) (f i j k) -> b (t f) (x i) (y j) (z k)",
            b=B, x=x, y=y, z=z, f=self.frames, i=self.cell, j=self.cell,
        )  # fmt: skip

    def _check(self, size: int, intrinsics: Tensor, extrinsics: Tensor, view_mask: Tensor | None) -> None:
        wanted = (size, self.views)
        if intrinsics.shape[:2] != wanted or extrinsics.shape[:2] != wanted:
            raise expected(
                f"a camera for each of {self.views} views of {size} rows",
                got=f"intrinsics {tuple(intrinsics.shape)}, extrinsics {tuple(extrinsics.shape)}",
                do="give the cameras in the order of the images",
            )
        if view_mask is not None and not view_mask.any(1).all():
            raise expected("at least one camera in every row", got="a row without any", do="leave such rows out")
        check_cameras(intrinsics, extrinsics)


class _CellBlock(nn.Module):
    """A residual 3D convolution over the cells, and an MLP, both modulated by the stream's condition."""

    def __init__(self, width: int, *, condition_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.to_shift_scale = nn.Linear(condition_width, 2 * width)
        self.around = nn.Conv3d(width, width, 3, padding=1)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, condition: Tensor, cells: list[int]) -> Tensor:
        """h (B, P, D), condition (B, condition width)."""
        shift, scale = self.to_shift_scale(condition)[:, None].chunk(2, dim=-1)
        inner = torch.addcmul(shift, self.norm(h), 1 + scale)
        x, y, z = cells
        mixed = self.around(rearrange(inner, "b (x y z) d -> b d x y z", x=x, y=y, z=z).contiguous())
        return h + self.mlp(rearrange(mixed, "b d x y z -> b (x y z) d"))


def occupancy_loss(logits: Tensor, truth: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Binary cross-entropy over voxels that are known. logits, truth (B, T, X, Y, Z), the latter as `Batch.occupancy`;
    mask (B, T) bool: the frames that are real.

    Filled voxels are few, yet their share is what a grid is about: the plain likelihood keeps the threshold at one half
    honest, so none is weighed up.
    """
    if logits.shape != truth.shape:
        raise expected(f"occupancy of shape {tuple(logits.shape)}", got=tuple(truth.shape), do="label the same grid")
    known = truth != 2
    if mask is not None:
        known = known & mask[:, :, None, None, None]
    error = F.binary_cross_entropy_with_logits(logits.float(), (truth == 1).float(), reduction="none")
    return (error * known).sum() / known.sum().clamp_min(1)
