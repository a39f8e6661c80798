"""Parts of a compact policy: an encoder of pictures that a sentence modulates, and the blocks of its trunk."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

GRID = 4
"""Places along a side of the encoder's last picture."""
GROUPS = 4
"""Of channels that are normalised together."""


class Encoder(nn.Module):
    """Pictures (N, C, H, W) -> features (N, F): four strided convolutions, each normalised and then scaled and shifted by what
    is told (N, D) (FiLM, Perez et al. 2018; OpenVLA-OFT tells its vision so)."""

    def __init__(self, inputs: int, channels: int, told: int) -> None:
        super().__init__()
        widths = [channels, 2 * channels, 4 * channels, 4 * channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip([inputs, *widths], widths, strict=False)
        )
        self.films = nn.ModuleList(nn.Linear(told, 2 * width) for width in widths)
        for film in self.films:
            nn.init.zeros_(cast(nn.Linear, film).weight)
            nn.init.zeros_(cast(nn.Linear, film).bias)
        self.width = widths[-1] * GRID**2

    def forward(self, pictures: Tensor, told: Tensor) -> Tensor:
        x = pictures
        for convolution, film in zip(self.convolutions, self.films, strict=True):
            scale, shift = film(told)[..., None, None].chunk(2, dim=1)
            x = F.silu(normalized(convolution(x)) * (1 + scale) + shift)
        return (x if x.shape[-1] == GRID else F.adaptive_avg_pool2d(x, GRID)).flatten(1)


def normalized(x: Tensor) -> Tensor:
    """(N, C, H, W) with zero mean and unit variance in each of its groups of channels: a group norm without weights, written as
    a layer norm, which is one operation where a graph is exported."""
    together = x.reshape(x.shape[0], GROUPS, -1)
    return F.layer_norm(together, together.shape[2:]).reshape(x.shape)


class Block(nn.Module):
    """A residual block of the trunk."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + self.layers(h)
