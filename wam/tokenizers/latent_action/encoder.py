"""Inverse dynamics: what happened between two frames, as the numbers that a quantiser takes.

Each view goes through the same convolutions; a linear map of its own says what its picture plane has to do with the whole,
and views that are there are averaged, so that any number of cameras from one up can be read.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.tokenizers.latent_action.blocks import ResidualBlock, norm

FOLD = 2
GRID = 8
CAMERA_REACH = (0.25, 0.25, 0.2, 0.2)
"""The largest motion of a camera between two frames: right and down in halves of a side, zoom, radians."""


class InverseDynamics(nn.Module):
    """Frames (B, V, T, 3, H, W) in [-1, 1] and which views are there (B, V) -> inputs of the quantiser (B, T - 1, tokens, I)
    and camera motion (B, V, T - 1, 4), or None where it has no such stream."""

    def __init__(
        self, *, size: int, views: int, tokens: int, inputs: int, base: int, width: int, context: int, camera: bool
    ) -> None:
        super().__init__()
        self.tokens, self.inputs = tokens, inputs
        layers: list[nn.Module] = [nn.Conv2d(2 * 3 * FOLD**2, base, 3, padding=1), ResidualBlock(base)]
        side, last = size // FOLD, base
        while side > GRID:
            layers += [
                norm(last),
                nn.SiLU(),
                nn.Conv2d(last, 2 * last, 4, stride=2, padding=1),
                ResidualBlock(2 * last),
            ]
            side, last = side // 2, 2 * last
        self.trunk = nn.Sequential(*layers, norm(last), nn.SiLU(), nn.Conv2d(last, 16, 1), nn.Flatten())
        self.to_summary = nn.ModuleList(nn.Linear(16 * side**2, width) for _ in range(views))
        self.to_camera = nn.Linear(16 * side**2, 4) if camera else None
        if self.to_camera is not None:
            nn.init.zeros_(self.to_camera.weight)
            nn.init.zeros_(self.to_camera.bias)
        self.neighbours = nn.Conv1d(width, width, 2 * context + 1, padding=context) if context else None
        self.to_inputs = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, tokens * inputs)
        )

    def forward(self, frames: Tensor, there: Tensor) -> tuple[Tensor, Tensor | None]:
        B, V = frames.shape[:2]
        before, after = frames[:, :, :-1], frames[:, :, 1:]
        pairs = torch.cat([before, after - before], dim=3)
        K = pairs.shape[2]
        rows, slots = there.nonzero(as_tuple=True)
        pictures = rearrange(pairs[rows, slots], "r k c h w -> (r k) c h w")
        found = rearrange(self.trunk(F.pixel_unshuffle(pictures, FOLD)), "(r k) d -> r k d", k=K)
        summary = found.new_zeros(B, K, self.to_summary[0].out_features)
        for slot, project in enumerate(self.to_summary):
            own = slots == slot
            if own.any():
                summary = summary.index_add(0, rows[own], project(found[own]).to(summary.dtype))
        summary = summary / there.sum(dim=1).clamp_min(1)[:, None, None]
        if self.neighbours is not None:
            summary = summary + self.neighbours(summary.transpose(1, 2)).transpose(1, 2)
        inputs = rearrange(self.to_inputs(summary), "b k (n i) -> b k n i", n=self.tokens)
        if self.to_camera is None:
            return inputs, None
        reach = torch.tensor(CAMERA_REACH, device=found.device)
        motion = torch.zeros(B, V, K, 4, device=found.device).index_put(
            (rows, slots), self.to_camera(found).float().tanh() * reach
        )
        return inputs, motion
