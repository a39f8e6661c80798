"""Flow matching in the diffusers convention: x_sigma = (1 - sigma) x + sigma noise, velocity = noise - x.

sigma is a stream's clock: 0 is clean, 1 is pure noise. Tensors are (B, ...); clocks are (B,) or (B, T) and are
broadcast over the remaining axes. Source: rectified flow (Liu et al. 2022, Lipman et al. 2022).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Parametrisation = Literal["velocity", "x0"]

SMALLEST_CLOCK = 0.02
"""Clocks below this are treated as this when an x0 prediction is turned into a velocity, which divides by sigma."""


def expand_clock(clock: Tensor, like: Tensor) -> Tensor:
    """(B,) or (B, T) to a shape that broadcasts against `like` (B, ...) or (B, T, ...)."""
    return clock.reshape(*clock.shape, *(1,) * (like.ndim - clock.ndim))


def add_noise(x: Tensor, noise: Tensor, clock: Tensor) -> Tensor:
    return torch.lerp(x, noise, expand_clock(clock, x).to(x.dtype))


def target(x: Tensor, noise: Tensor, parametrisation: Parametrisation) -> Tensor:
    """What the network should print: the clean signal or the velocity noise - x."""
    return x if parametrisation == "x0" else noise - x


def to_velocity(prediction: Tensor, x_sigma: Tensor, clock: Tensor, parametrisation: Parametrisation) -> Tensor:
    if parametrisation == "velocity":
        return prediction
    return (x_sigma - prediction) / expand_clock(clock, x_sigma).clamp_min(SMALLEST_CLOCK)


def to_clean(prediction: Tensor, x_sigma: Tensor, clock: Tensor, parametrisation: Parametrisation) -> Tensor:
    """The clean signal that a prediction at this clock stands for."""
    if parametrisation == "x0":
        return prediction
    return x_sigma - expand_clock(clock, x_sigma) * prediction


def masked_mean(value: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `value` (B, ...) over the entries whose `mask` (a prefix of its axes) is nonzero; 0 if there are none."""
    if mask is None:
        return value.mean()
    weight = mask.to(value.dtype).reshape(*mask.shape, *(1,) * (value.ndim - mask.ndim)).expand_as(value)
    return (value * weight).sum() / weight.sum().clamp_min(1)


def clock_weight(clock: Tensor, parametrisation: Parametrisation) -> Tensor:
    """Loss weight per clock. x0 errors count in full above sigma 0.2 and fade with sigma below, where x0 is trivial."""
    return torch.ones_like(clock) if parametrisation == "velocity" else (clock / 0.2).clamp(max=1.0)
