"""Normalisation of states and actions, inside the model: raw units come in and raw units go out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SMALLEST_SCALE = 1e-4
"""A dimension that moves less than this is left unscaled: it is constant, and dividing would blow up its noise."""


class Normalizer(nn.Module):
    """(x - center) / scale per dimension, as buffers that travel with the weights."""

    center: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit(self, center: Sequence[float], scale: Sequence[float]) -> None:
        wide = torch.as_tensor(scale, dtype=torch.float32)
        self.center.copy_(torch.as_tensor(center, dtype=torch.float32))
        self.scale.copy_(torch.where(wide > SMALLEST_SCALE, wide, torch.ones_like(wide)))

    def normalize(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.scale

    def restore(self, x: Tensor) -> Tensor:
        return x * self.scale + self.center
