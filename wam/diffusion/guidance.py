"""Classifier-free guidance (Ho and Salimans 2022): push the velocity away from what it would be without the sentence."""

from __future__ import annotations

from torch import Tensor


def guide(conditional: dict[str, Tensor], unconditional: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """unconditional + scale (conditional - unconditional); scale 1 is the conditional velocity itself."""
    return {s: unconditional[s] + scale * (conditional[s] - unconditional[s]) for s in conditional}
