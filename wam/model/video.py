"""Video stems and heads: frames or latents to an 8 x 8 (say) grid of tokens per view and tubelet, and back.

`conv` halves the picture with convolutions and keeps the finer features for the head (a U-Net whose middle is the
joint transformer; U-ViT, Bao et al. 2023). `patch` is one linear map each way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import expected


class FilmBlock(nn.Module):
    """Residual convolution block with FiLM by the stream's condition. Pictures (B G, C, H, W), condition (B, G', W)."""

    def __init__(self, inputs: int, outputs: int, *, condition_width: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(math.gcd(8, inputs), inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.to_scale_shift = nn.Linear(condition_width, 2 * outputs)
        self.norm_out = nn.GroupNorm(math.gcd(8, outputs), outputs)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """condition (pictures, condition width)."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.to_scale_shift(condition)[..., None, None].chunk(2, dim=1)
        h = torch.addcmul(shift.to(h.dtype), self.norm_out(h), 1 + scale.to(h.dtype))
        return self.shortcut(x) + self.conv_out(F.silu(h))


def level_widths(size: int, grid: int, base: int) -> list[int]:
    """Channels at each resolution from size / 2 down to grid: base, 2 base, 4 base, ..."""
    levels = int(math.log2(size / grid)) if size > grid else 0
    if grid * 2**levels != size:
        raise expected(
            f"a picture or latent side of {grid} times a power of two",
            got=size,
            do="change the image size or the stream's `grid`",
        )
    return [base * 2**level for level in range(levels)]


class ConvStem(nn.Module):
    """Pictures (P, C, H, W) -> tokens (P, grid * grid, D) and the finer features, coarsest last.

    blocks: a modulated residual block at each resolution, so that what the stream is told already steers its features.
    """

    def __init__(
        self,
        channels: int,
        *,
        size: int,
        grid: int,
        base: int,
        width: int,
        condition_width: int,
        blocks: bool = False,
    ) -> None:
        super().__init__()
        widths = level_widths(size, grid, base)
        self.first = nn.Conv2d(channels, base, 3, padding=1)
        steps, last = [], base
        for outputs in [2 * width for width in widths]:
            steps.append(
                nn.Sequential(
                    nn.GroupNorm(math.gcd(8, last), last), nn.SiLU(), nn.Conv2d(last, outputs, 4, stride=2, padding=1)
                )
            )
            last = outputs
        self.steps = nn.ModuleList(steps)
        self.to_tokens = nn.Sequential(
            nn.GroupNorm(math.gcd(8, last), last), nn.SiLU(), nn.Conv2d(last, width, 3, padding=1)
        )
        self.skip_widths = [base, *(2 * width for width in widths)]
        self.blocks = nn.ModuleList(
            FilmBlock(width, width, condition_width=condition_width) for width in self.skip_widths if blocks
        )

    def forward(self, pictures: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
        """condition (P, condition width), already through its activation; it modulates the blocks, if there are any."""
        features: list[Tensor] = []
        for level, step in enumerate([self.first, *self.steps]):
            h = step(features[-1] if level else pictures)
            features.append(self.blocks[level](h, condition) if len(self.blocks) else h)
        return rearrange(self.to_tokens(features[-1]), "p d h w -> p (h w) d"), features


class ConvHead(nn.Module):
    """Tokens and the stem's finer features -> pictures (P, C, H, W); zero at the start of training."""

    def __init__(
        self,
        channels: int,
        *,
        grid: int,
        skip_widths: Sequence[int],
        width: int,
        condition_width: int,
    ) -> None:
        super().__init__()
        self.grid, self.finest = grid, skip_widths[0]
        self.norm = nn.LayerNorm(width, eps=1e-6)
        narrow, blocks, last = [], [], width
        for skip in reversed(skip_widths):
            narrow.append(nn.Conv2d(last, skip, 1))
            blocks.append(FilmBlock(skip, skip, condition_width=condition_width))
            last = skip
        self.narrow, self.blocks = nn.ModuleList(narrow), nn.ModuleList(blocks)
        self.last = nn.Sequential(
            nn.GroupNorm(math.gcd(8, last), last), nn.SiLU(), nn.Conv2d(last, channels, 3, padding=1)
        )
        nn.init.zeros_(self.last[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.last[-1].bias)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, features: Sequence[Tensor], condition: Tensor) -> tuple[Tensor, Tensor]:
        """The pictures, and the finest features (P, `finest`, h, w) that they are drawn from."""
        h = rearrange(self.norm(tokens), "p (h w) d -> p d h w", h=self.grid)
        h = h.contiguous()  # group norms and convolutions after them run slower with channels last on a CPU
        for narrow, block, feature in zip(self.narrow, self.blocks, reversed(features), strict=True):
            h = narrow(h)  # before growing: the finest level is where the cost lies
            if h.shape[-1] != feature.shape[-1]:
                h = F.interpolate(h, scale_factor=2, mode="nearest")
            h = block(h + feature, condition)
        return self.last(h), h


class PatchStem(nn.Module):
    """Pictures (P, C, H, W) -> tokens by one linear map of each patch."""

    skip_widths: Sequence[int] = ()

    def __init__(self, channels: int, *, size: int, grid: int, width: int) -> None:
        super().__init__()
        if size % grid:
            raise expected(f"a picture side that {grid} divides", got=size, do="change the stream's `grid`")
        self.patch = size // grid
        self.project = nn.Linear(channels * self.patch**2, width)

    def forward(self, pictures: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
        patches = rearrange(pictures, "p c (h i) (w j) -> p (h w) (i j c)", i=self.patch, j=self.patch)
        return self.project(patches), []


class PatchHead(nn.Module):
    """Tokens -> pictures by one modulated linear map; zero at the start of training."""

    def __init__(self, channels: int, *, size: int, grid: int, width: int, condition_width: int) -> None:
        super().__init__()
        self.patch, self.grid, self.finest = size // grid, grid, width
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.to_shift_scale = nn.Linear(condition_width, 2 * width)
        self.project = nn.Linear(width, channels * self.patch**2)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, tokens: Tensor, features: Sequence[Tensor], condition: Tensor) -> tuple[Tensor, Tensor]:
        """The pictures, and the features (P, `finest`, grid, grid) that they are drawn from."""
        shift, scale = self.to_shift_scale(condition)[:, None].chunk(2, dim=-1)
        h = torch.addcmul(shift, self.norm(tokens), 1 + scale)
        drawn = rearrange(
            self.project(h), "p (h w) (i j c) -> p c (h i) (w j)", h=self.grid, i=self.patch, j=self.patch
        )
        return drawn, rearrange(h, "p (h w) d -> p d h w", h=self.grid)
