"""The forward model: the present and a latent action to what comes next.

A small U-Net over the present picture, each block modulated by the latent (which, given only as input, would be ignored).
Its last layer prints a flow that moves the present and what has changed beside, so that it starts from a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam.tokenizers.latent_action.blocks import ResidualBlock, norm, warped
from wam.tokenizers.latent_action.encoder import GRID

FLOW_SCALE = 1 / 8
"""Of a picture's half side, what one unit of the printed flow moves a pixel."""


class ForwardModel(nn.Module):
    """Pictures (P, C, H, W), their view slots (P,) and latents (P, latent width) -> predicted pictures (P, out, H, W).

    copies: the prediction is of the same kind as the input and starts as its copy, moved by a flow. extra: (P, width),
    whatever else is known, added to the condition.
    """

    def __init__(
        self,
        channels: int,
        *,
        size: int,
        views: int,
        latent_width: int,
        base: int,
        width: int,
        fold: int = 2,
        outputs: int = 0,
        copies: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.fold, self.copies, self.width = channels, fold, copies, width
        outputs = channels + 2 if copies else outputs
        self.to_condition = nn.Sequential(nn.Linear(latent_width, width), nn.SiLU(), nn.Linear(width, width))
        self.view = nn.Parameter(0.02 * torch.randn(views, width))
        widths, side = [base], size // fold
        while side > GRID:
            widths.append(2 * widths[-1])
            side //= 2
        self.first = nn.Conv2d(channels * fold**2, base, 3, padding=1)
        modulated = {"condition_width": width}
        self.down = nn.ModuleList(ResidualBlock(w, **modulated) for w in widths)
        self.halve = nn.ModuleList(nn.Conv2d(w, 2 * w, 4, stride=2, padding=1) for w in widths[:-1])
        self.middle = ResidualBlock(widths[-1], **modulated)
        self.narrow = nn.ModuleList(nn.Conv2d(2 * w, w, 1) for w in widths[:-1])
        self.up = nn.ModuleList(ResidualBlock(w, **modulated) for w in widths)
        self.last = nn.Sequential(norm(base), nn.SiLU(), nn.Conv2d(base, outputs * fold**2, 3, padding=1))
        nn.init.zeros_(self.last[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.last[-1].bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor, slots: Tensor, latents: Tensor, *, extra: Tensor | None = None) -> Tensor:
        condition = self.to_condition(latents) + self.view[slots]
        if extra is not None:
            condition = condition + extra
        condition = F.silu(condition)
        h = self.first(F.pixel_unshuffle(pictures, self.fold))
        features = []
        for level, block in enumerate(self.down):
            h = block(self.halve[level - 1](h) if level else h, condition)
            features.append(h)
        h = self.up[-1](self.middle(h, condition), condition)
        for level in reversed(range(len(self.halve))):
            grown = F.interpolate(self.narrow[level](h), scale_factor=2, mode="nearest")
            h = self.up[level](grown + features[level], condition)
        drawn = F.pixel_shuffle(self.last(h), self.fold).float()
        if not self.copies:
            return drawn
        return warped(pictures, drawn[:, self.channels :] * FLOW_SCALE) + drawn[:, : self.channels]
