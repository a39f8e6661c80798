"""Weights at one byte each: a matrix as int8 with a float32 scale for each of its rows, beside tensors that stay as they are.

    name           (R, ...) int8, R rows of the first axis
    name:scale     (R,) float32; a weight is its integer times the scale of its row

Each row is laid out by its largest weight, so no weight is further off than half of its row's scale (a 254th of that largest
one). Computing is done with the weights this gives back, as float32: only storage is small.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wam.contracts import expected

SCALE = ":scale"
LARGEST = 127
SMALL = 1024
"""A tensor of fewer numbers stays as it is, and so does one of a single axis: norms, biases, normalizers."""


def quantize(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors to store in place of these: floating matrices as int8 and scales, all else as it was.

    Raises WamError if a name is taken or a weight is not finite.
    """
    if taken := [name for name in tensors if name.endswith(SCALE)]:
        raise expected(f"names without {SCALE}, which scales are stored under", got=taken[0], do="rename it")
    stored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.ndim < 2 or value.numel() < SMALL or not value.is_floating_point():
            stored[name] = value
            continue
        if not value.isfinite().all():
            raise expected(f"finite weights in {name}", got="some that are not", do="ship an earlier checkpoint")
        rows = value.detach().float().flatten(1)
        scale = (rows.abs().amax(1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        stored[name] = (rows / scale[:, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8).view(value.shape)
        stored[name + SCALE] = scale
    return stored


def restored(tensors: Mapping[str, Tensor], *, count: int) -> dict[str, Tensor]:
    """The float32 weights behind `quantize(...)`'s tensors, of which `count` are int8 with scales.

    Raises WamError if one lacks its partner, or if both do not fit each other.
    """
    scales = {name.removesuffix(SCALE): value for name, value in tensors.items() if name.endswith(SCALE)}
    if len(scales) != count:
        raise expected(f"{count} int8 matrices with their scales", got=len(scales), do="fetch the weights again")
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith(SCALE):
            continue
        if name in scales:
            scale = scales.pop(name)
            if (
                value.dtype != torch.int8
                or value.ndim < 2
                or scale.shape != value.shape[:1]
                or not scale.isfinite().all()
            ):
                raise expected(
                    f"{name} as int8 with a finite scale for each of its rows",
                    got=f"{value.dtype} of {tuple(value.shape)} with {tuple(scale.shape)} scales",
                    do="fetch the weights again",
                )
            value = value.float() * scale.view(-1, *[1] * (value.ndim - 1))
        found[name] = value
    if scales:
        raise expected(
            f"a matrix for each of {count} scales", got=f"none for {next(iter(scales))}", do="fetch the weights again"
        )
    return found


def quantized_count(tensors: Mapping[str, Tensor]) -> int:
    """How many are stored as int8 with scales: what `restored` is told, so that a lost one is noticed."""
    return sum(name.endswith(SCALE) for name in tensors)
