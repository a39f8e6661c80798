"""Voxels read off a video stream's features: each cell of a coarse grid looks where its points fall in every picture.

The present is read from what the observation's stem saw, the frames to come from the finest features that their head
draws from; a grid to come starts as the present one, as a picture to come starts as its copy. Nothing reads the voxels,
so a model that is not asked for them pays nothing.

Source: projecting voxel queries into camera features follows RoboMM (Yan et al. 2024) and BEV perception before it; here
the features are those of a denoised future, so that the grid can be one that is only imagined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import expected
from wam.geometry.cameras import Cameras, in_picture, project
from wam.geometry.distance import truncated_distance
from wam.geometry.grid import OCCUPIED, UNKNOWN, VoxelConfig
from wam.model.config import ModelConfig
from wam.model.frames import VideoEnds
from wam.model.video import FilmBlock

POINTS = 2
"""Points along each side of a cell at which it looks at the pictures."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a video stream's prediction was drawn from: features (B, T / tubelet, G, C, h, w), and the stream's condition
    (B, 1 or T / tubelet, W)."""

    features: Tensor
    condition: Tensor

    def take(self, rows: Tensor) -> Drawn:
        return Drawn(features=self.features[rows], condition=self.condition[rows])


@dataclass(frozen=True, kw_only=True)
class Voxels:
    """What a model says of voxels, all before the sigmoid: filled (N, T, X, Y, Z), the present first; colour (N, T, X, Y, Z, 3)
    of a surface there, and distance (N, T, X, Y, Z) to the nearest filled voxel as a share of the reach, where it has them."""

    filled: Tensor
    colour: Tensor | None = None
    distance: Tensor | None = None


class VoxelReader(nn.Module):
    """Features (P, G, C, h, w) of pictures, with cameras -> pillars (P, Z' * width, X', Y') of cells.

    G is 1 where one picture holds all views, else V. A cell of cell x cell x cell voxels samples the features of every
    view at 2 x 2 x 2 points, and is told how far each lies from the camera and whether it is in the picture. Views
    that are missing are left out of the mean over views; a learned place says what is usually there.
    """

    points: Tensor

    def __init__(
        self, grid: VoxelConfig, *, channels: int, views: int, image_size: int, cell: int, width: int, narrow: int
    ) -> None:
        super().__init__()
        self.cells, self.image_size = [count // cell for count in grid.shape], image_size
        x, y, z = self.cells
        inner = VoxelConfig(
            shape=[POINTS * n for n in self.cells],
            origin=list(grid.origin),
            side=grid.side * cell / POINTS,
        )
        points = rearrange(
            torch.from_numpy(inner.centres()).float().reshape(*inner.shape, 3),
            "(x i) (y j) (z k) c -> (x y z i j k) c",
            i=POINTS,
            j=POINTS,
            k=POINTS,
        )
        self.register_buffer("points", points, persistent=False)
        self.narrow = nn.Conv2d(channels, narrow, 1)
        self.read = nn.ModuleList(nn.Linear(POINTS**3 * (narrow + 2), width) for _ in range(views))
        self.place = nn.Parameter(0.02 * torch.randn(x * y * z, width))

    def forward(self, features: Tensor, cameras: Cameras) -> Tensor:
        """cameras: of the P rows."""
        pictures, groups = features.shape[:2]
        with torch.autocast(features.device.type, enabled=False):  # metres and pixels want more than eight bits
            pixels, depth = project(self.points, cameras.intrinsics, cameras.extrinsics)
            seen = in_picture(pixels, depth, (self.image_size, self.image_size))
            where = (pixels + 0.5) / self.image_size * 2 - 1
        narrowed = rearrange(self.narrow(features.flatten(0, 1)), "(p g) c h w -> p g c h w", g=groups).float()
        h = self.place.expand(pictures, -1, -1)
        share = cameras.mask / cameras.mask.sum(1, keepdim=True).clamp_min(1)
        for v, read in enumerate(self.read):
            found = F.grid_sample(narrowed[:, min(v, groups - 1)], where[:, v, :, None], align_corners=False)[..., 0]
            told = torch.stack([depth[:, v], torch.ones_like(depth[:, v])], dim=1)
            told = torch.cat([found, told], dim=1) * seen[:, v, None]
            token = F.silu(read(rearrange(told, "p c (n i) -> p n (i c)", i=POINTS**3)))
            h = h + token * share[:, v, None, None]
        x, y, z = self.cells
        return rearrange(h, "p (x y z) d -> p (z d) x y", x=x, y=y, z=z).contiguous()


class VoxelDecoder(nn.Module):
    """Pillars of cells, modulated by a condition -> `filled` (P, frames, X, Y, Z, 1), and (..., n) of each name in `beside` and
    its n; zero at the start of training.

    The cells of a pillar are mixed as channels, and pillars with their neighbours by convolution. What is said beside is read
    off the same features, so it costs a product.
    """

    def __init__(
        self,
        grid: VoxelConfig,
        *,
        pillar: int,
        width: int,
        condition_width: int,
        cell: int,
        frames: int,
        beside: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.cell, self.frames, self.height = cell, frames, grid.shape[2]
        self.block = FilmBlock(pillar, width, condition_width=condition_width)
        voxels = frames * cell**2 * self.height
        self.out = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, voxels, 1))
        self.beside = nn.ModuleDict({name: nn.Conv2d(width, n * voxels, 1) for name, n in (beside or {}).items()})
        for last in (self.out[-1], *self.beside.values()):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, pillars: Tensor, condition: Tensor) -> dict[str, Tensor]:
        """condition (P, condition width), already through its activation."""
        h = self.out[:-1](self.block(pillars, condition))
        return {name: self._unfolded(last(h)) for name, last in (("filled", self.out[-1]), *self.beside.items())}

    def _unfolded(self, pillars: Tensor) -> Tensor:
        return rearrange(
            pillars,
            "p (f z i j n) x y -> p f (x i) (y j) z n",
            f=self.frames,
            z=self.height,
            i=self.cell,
            j=self.cell,
        ).float()


class OccupancyHead(nn.Module):
    """What a model says of the voxels of its work area, at the present and at each frame to come. videos: its streams'."""

    def __init__(self, model: ModelConfig, videos: Mapping[str, nn.Module], *, condition_width: int) -> None:
        super().__init__()
        config, grid = model.occupancy, model.occupancy.grid
        config.validate()
        reader = {"views": model.views, "image_size": model.image_size, "cell": config.cell, "width": config.cell_width}
        shapes = {"width": config.width, "condition_width": condition_width, "cell": config.cell}
        weights = {"colour": (config.colour_weight, 3), "distance": (config.distance_weight, 1)}
        beside = {name: n for name, (weight, n) in weights.items() if weight}
        seen = cast(VideoEnds, videos["observation"]).resolutions
        self.joined = nn.ModuleList(nn.Conv2d(channels, config.narrow, 1) for channels in seen)
        self.now = VoxelReader(grid, channels=config.narrow, narrow=config.narrow, **reader)
        pillar = self.now.cells[2] * config.cell_width
        self.present = VoxelDecoder(grid, pillar=pillar, frames=1, beside=beside, **shapes)
        head = cast(VideoEnds, videos["future"]).head if "future" in videos else None
        if head is not None:
            self.then = VoxelReader(grid, channels=head.finest, narrow=config.narrow, **reader)
            frames = model.streams["future"].tubelet
            self.future = VoxelDecoder(grid, pillar=2 * pillar, frames=frames, beside=beside, **shapes)

    def forward(
        self, seen: Sequence[Tensor], condition: Tensor, cameras: Cameras, *, future: Drawn | None = None
    ) -> Voxels:
        """Of the present, and of each frame to come where the future is given: T is 1 + frames to come.

        seen: features (B, G, C, h, w) of the present at each resolution, finest first; condition (B, 1, W).
        """
        pillars = self.now(self._join(seen), cameras)
        now = self.present(pillars, F.silu(condition[:, 0]))
        if future is None:
            return _told(now)
        rows, times = future.features.shape[:2]
        each = torch.arange(rows, device=condition.device).repeat_interleave(times)
        seen_ahead = self.then(future.features.flatten(0, 1), cameras.take(each))
        told = F.silu(future.condition.expand(-1, times, -1).flatten(0, 1))
        change = self.future(torch.cat([pillars[each], seen_ahead], dim=1), told)
        ahead = {name: rearrange(c, "(b t) f x y z n -> b (t f) x y z n", b=rows) for name, c in change.items()}
        return _told({name: torch.cat([first, first + ahead[name]], dim=1) for name, first in now.items()})

    def _join(self, observed: Sequence[Tensor]) -> Tensor:
        """Features of every resolution summed at the finest."""
        rows, groups, _, size, _ = observed[0].shape
        total: Tensor | None = None
        for narrow, features in zip(self.joined, observed, strict=True):
            h = narrow(features.flatten(0, 1))
            if h.shape[-1] != size:
                h = F.interpolate(h, size=(size, size), mode="nearest")
            total = h if total is None else total + h
        assert total is not None
        return F.silu(rearrange(total, "(b g) c h w -> b g c h w", b=rows, g=groups))


def _told(said: Mapping[str, Tensor]) -> Voxels:
    """Of what decoders give by name, (N, T, X, Y, Z, n)."""
    distance = said.get("distance")
    return Voxels(
        filled=said["filled"][..., 0],
        colour=said.get("colour"),
        distance=None if distance is None else distance[..., 0],
    )


def occupancy_loss(logits: Tensor, truth: Tensor, *, mask: Tensor | None = None, filled_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy over voxels that are known. logits, truth (B, T, X, Y, Z), the latter as `Batch.occupancy`, the
    present first; mask (B, T) bool: the frames that are real. filled_weight: of filled voxels in the frames to come.

    Where a thing will be is less sure than where it is, and no voxel of its path may be more likely filled than not: the
    likeliest grid then leaves it out. A weight w puts one half where the chance is 1 / (1 + w), so that "filled" is said of
    what overlaps most with the truth. Source: the threshold that makes a ratio of overlap largest lies below one half
    (Lipton, Elkan and Narayanaswamy 2014, of F-scores).
    """
    if logits.shape != truth.shape:
        raise expected(f"occupancy of shape {tuple(logits.shape)}", got=tuple(truth.shape), do="label the same grid")
    known = truth != UNKNOWN
    if mask is not None:
        known = known & mask[:, :, None, None, None]
    weight = logits.new_full((logits.shape[1], 1, 1, 1), filled_weight, dtype=torch.float32)
    weight[0] = 1.0
    filled = (truth == OCCUPIED).float()
    error = F.binary_cross_entropy_with_logits(logits.float(), filled, reduction="none", pos_weight=weight)
    return (error * known).sum() / known.sum().clamp_min(1)


def colour_loss(logits: Tensor, truth: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Mean difference of colours in [0, 1], over voxels whose colour is known: the surface of what is there.

    logits (B, T, X, Y, Z, 3), before the sigmoid; truth (B, T, X, Y, Z, 4) uint8 as `Batch.occupancy_colour`; mask (B, T) bool:
    the frames that are real. The difference itself, not its square: of two surfaces that may be there one is chosen, not mixed.
    """
    if logits.shape[:-1] != truth.shape[:-1]:
        raise expected(f"colours of shape {(*logits.shape[:-1], 4)}", got=tuple(truth.shape), do="label the same grid")
    known = truth[..., 3] > 0
    if mask is not None:
        known = known & mask[:, :, None, None, None]
    apart = (logits[known].float().sigmoid() - truth[known][:, :3] / 255).abs()
    return apart.sum() / (3 * known.sum()).clamp_min(1)


def distance_loss(logits: Tensor, truth: Tensor, *, reach: float, side: float, mask: Tensor | None = None) -> Tensor:
    """Mean difference of the distance to the nearest filled voxel, as a share of `reach` metres, where the truth tells it.

    logits, truth (B, T, X, Y, Z), the latter as `Batch.occupancy`, with voxels of `side` metres; mask (B, T) bool.
    """
    if logits.shape != truth.shape:
        raise expected(f"occupancy of shape {tuple(logits.shape)}", got=tuple(truth.shape), do="label the same grid")
    share, known = truncated_distance(truth, reach=reach / side)
    if mask is not None:
        known = known & mask[:, :, None, None, None]
    apart = (logits.float().sigmoid() - share).abs() * known
    return apart.sum() / known.sum().clamp_min(1)
