"""Dense optical flow without learning: Lucas and Kanade (1981), iterated from coarse to fine (Bouguet 2001)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from wam.tokenizers.latent_action.blocks import warped

REGULAR = 1e-3
"""Added to the structure tensor: where a picture is flat nothing is known, and the flow stays what it was."""


def optical_flow(before: Tensor, after: Tensor, *, levels: int = 4, rounds: int = 3, window: int = 5) -> Tensor:
    """Pictures (P, C, H, W) in [-1, 1] -> (P, 2, H, W): x, y in halves of a side, from which places of `before` the
    content of `after` came. So `warped(before, flow)` is near `after`.

    levels: halvings of the sides, down to no less than 8 pixels; window: side of the neighbourhood that moves alike.
    """
    grey = [pictures.float().mean(dim=1, keepdim=True) for pictures in (before, after)]
    pyramid = [tuple(grey)]
    while len(pyramid) < levels and min(pyramid[-1][0].shape[-2:]) >= 16:
        pyramid.append(tuple(F.avg_pool2d(g, 2) for g in pyramid[-1]))
    flow = before.new_zeros(len(before), 2, *pyramid[-1][0].shape[-2:], dtype=torch.float32)
    for source, wanted in reversed(pyramid):
        if flow.shape[-2:] != source.shape[-2:]:
            flow = F.interpolate(flow, size=source.shape[-2:], mode="bilinear", align_corners=False)
        for _ in range(rounds):
            flow = flow + _step(warped(source, flow), wanted, window)
        flow = F.avg_pool2d(flow, 3, stride=1, padding=1, count_include_pad=False)
    return flow


def _step(moved: Tensor, wanted: Tensor, window: int) -> Tensor:
    """The least-squares motion of every neighbourhood that brings `moved` nearer to `wanted`, at most a pixel."""
    height, width = moved.shape[-2:]
    padded = F.pad(moved, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    left = wanted - moved

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)

    xx, yy, xy = around(dx * dx) + REGULAR, around(dy * dy) + REGULAR, around(dx * dy)
    xe, ye = around(dx * left), around(dy * left)
    determinant = xx * yy - xy * xy
    step = torch.cat([(yy * xe - xy * ye) / determinant, (xx * ye - xy * xe) / determinant], dim=1).clamp(-1, 1)
    return step * step.new_tensor([2 / width, 2 / height])[:, None, None]
