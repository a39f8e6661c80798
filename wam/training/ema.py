"""Exponential moving average of weights, with the warm-up of diffusers: decay = min(limit, (1 + n) / (10 + n))."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Ema:
    """Averaged copies of a module's floating-point entries, by name; entries of other kinds are copied."""

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        averaged, newest = [], []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                averaged.append(_own_piece(self.tensors[name]))
                newest.append(_own_piece(value.detach()))
            else:
                self.tensors[name].copy_(value)
        torch._foreach_lerp_(averaged, newest, weight)

    def load(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        for name, value in tensors.items():
            self.tensors[name].copy_(value)
        self.updates = updates


def _own_piece(value: Tensor) -> Tensor:
    """Of a tensor that is spread over ranks, this rank's: every piece is averaged by itself."""
    return value.to_local() if isinstance(value, DTensor) else value
