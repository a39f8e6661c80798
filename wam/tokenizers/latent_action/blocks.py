"""Pieces of the two networks: residual blocks with and without modulation, and pictures moved by a flow."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, width), width)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3 x 3 convolution, twice, added to the input. Pictures (P, C, H, W).

    With a condition (P, condition width) the second norm is scaled and shifted by it (FiLM, Perez et al. 2018).
    """

    def __init__(self, width: int, *, condition_width: int = 0) -> None:
        super().__init__()
        self.norm_in, self.norm_out = norm(width), norm(width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        self.to_scale_shift = nn.Linear(condition_width, 2 * width) if condition_width else None
        nn.init.normal_(self.conv_out.weight, std=0.01)  # near a copy, yet gradients reach the condition from the start
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = self.norm_out(self.conv_in(F.silu(self.norm_in(x))))
        if self.to_scale_shift is not None and condition is not None:
            scale, shift = self.to_scale_shift(condition).to(h.dtype)[..., None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        return x + self.conv_out(F.silu(h))


def warped(picture: Tensor, flow: Tensor) -> Tensor:
    """picture (P, C, H, W) sampled at each place plus flow (P, 2, H, W): x, y in halves of a side."""
    places = grid(picture) + flow.float().permute(0, 2, 3, 1)
    return F.grid_sample(picture.float(), places, padding_mode="border", align_corners=False)


def grid(picture: Tensor) -> Tensor:
    """The places of a picture's pixels, (H, W, 2): x, y from -1 to 1."""
    height, width = picture.shape[-2:]
    y, x = torch.meshgrid(
        (torch.arange(height, device=picture.device) * 2 + 1) / height - 1,
        (torch.arange(width, device=picture.device) * 2 + 1) / width - 1,
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def moved_camera(picture: Tensor, motion: Tensor) -> Tensor:
    """picture (P, C, H, W) as a camera sees it that has moved: motion (P, 4) is right, down, zoom and turn, where right
    and down are in halves of a side, zoom is a logarithm and turn is in radians."""
    right, down, zoom, turn = motion.float().unbind(dim=1)
    scale = zoom.exp()
    cos, sin = scale * turn.cos(), scale * turn.sin()
    matrix = torch.stack([torch.stack([cos, -sin, right], dim=1), torch.stack([sin, cos, down], dim=1)], dim=1)
    places = F.affine_grid(matrix, list(picture.shape), align_corners=False)
    return F.grid_sample(picture.float(), places, padding_mode="border", align_corners=False)
