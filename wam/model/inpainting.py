"""Inpainting: a chunk is drawn so that it agrees with one that is already known in part (real-time chunking).

    model.policy(batch, inpainting=Inpainting(chunk=under_way, weights=mask))

`guided` pulls the clean chunk that the network has in mind towards the known one, by the weighted error and a weight that
depends on the clock: pseudoinverse guidance (Song et al. 2023) as in real-time chunking (Black, Galliker and Levine 2025).
Which Jacobian carries the error from the clean chunk back to the noisy one is a choice:

    network    d clean / d noisy, by a backward pass through the network, as in the paper. All of the chunk moves. A head
               that predicts the clean chunk and hardly looks at its noisy one, as the demo's, is hardly pulled.
    identity   1, no backward pass, as the guided mode of some policy libraries comes to. Only what is bound moves at once;
               the rest follows at the next step, as far as the network looks at its noisy chunk.

`prefix` gives what has weight 1 as fixed. A model that was trained with prefixes (`model.prefix`, see `wam.model.prefix`)
reads it clean at every step, the first included, and draws what goes on from it. In any other it stands at every step at its
own noisy version, as in RePaint (Lugmayr et al. 2022) and Diffuser (Janner et al. 2022), so that it comes out exactly, and
later steps see it, as far as they look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wam.contracts import expected
from wam.diffusion.flow import SMALLEST_CLOCK
from wam.diffusion.samplers import Signals


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """chunk (B, K, A): what is known, in the action space's units. weights (B, K): 1 is settled, 0 is free. max_weight: of
    guidance; the largest step of the sampler bounds it too, so that one step pulls onto the known chunk and not past it."""

    chunk: Tensor
    weights: Tensor
    method: Literal["guided", "prefix"] = "guided"
    jacobian: Literal["network", "identity"] = "identity"
    max_weight: float = 5.0

    def __post_init__(self) -> None:
        if self.chunk.ndim != 3 or self.weights.shape != self.chunk.shape[:2]:
            raise expected(
                "a known chunk (B, K, A) and weights (B, K)",
                got=f"{tuple(self.chunk.shape)} and {tuple(self.weights.shape)}",
                do="give one weight for each action",
            )
        sound = torch.isfinite(self.chunk).all() and (self.weights >= 0).all() and (self.weights <= 1).all()
        named = self.method in ("guided", "prefix") and self.jacobian in ("network", "identity")
        if not sound or not named or self.max_weight <= 0:
            raise expected(
                "a finite chunk, weights in [0, 1], method guided or prefix, jacobian network or identity",
                got=f"{self.method!r}, {self.jacobian!r}, max_weight {self.max_weight}, numbers sound: {bool(sound)}",
                do="correct them",
            )


def settled_prefix(inpainting: Inpainting, *, like: Tensor, longest: int) -> Tensor:
    """(B, K) bool: the actions of a chunk `like` (B, K, A) that a trained prefix holds. Raises WamError where what is settled
    does not come first, or is more than in training."""
    _require_shape(inpainting.chunk, like)
    weights = inpainting.weights.to(like.device)
    settled = weights == 1
    count = settled.sum(1)
    first = torch.arange(settled.shape[1], device=settled.device) < count[:, None]
    if not torch.equal(first, weights > 0) or int(count.max()) > longest:
        raise expected(
            f"up to {longest} first actions of weight 1 and none of another weight, as in training with prefixes",
            got=f"{int(count.max())} settled, weights {weights[int(count.argmax())].tolist()}",
            do="continue by another method, or train with a longer prefix (model.prefix.longest, student.prefix)",
        )
    return settled


def _require_shape(known: Tensor, like: Tensor) -> None:
    if known.shape != like.shape:
        raise expected(f"a known chunk of shape {tuple(like.shape)}", got=tuple(known.shape), do="pad or cut it")


def guidance_weight(clock: Tensor, *, highest: float) -> Tensor:
    """The paper's (1 - t) / (t r^2) with r^2 = (1 - t)^2 / (t^2 + (1 - t)^2), where its time t is 1 - clock."""
    time = 1 - clock
    return ((time.square() + clock.square()) / (time * clock).clamp_min(1e-6)).clamp_max(highest)


def inpaint(
    velocity: Callable[[Tensor], Signals],
    noisy: Tensor,
    clock: Tensor,
    *,
    known: Tensor,
    inpainting: Inpainting,
    largest_step: float,
) -> Signals:
    """The velocities at `noisy` (B, K, A), that of `action` corrected so that the chunk agrees with `known`.

    velocity: of all wanted streams, for an action at this clock (a scalar); known (B, K, A): normalised.
    """
    _require_shape(known, noisy)
    clock = clock.clamp_min(SMALLEST_CLOCK)
    weights = inpainting.weights[..., None].to(noisy)
    if inpainting.method == "guided" and inpainting.jacobian == "network":
        with torch.enable_grad():
            at = noisy.detach().requires_grad_()
            slopes = velocity(at)
            clean = at - clock * slopes["action"]
            error = weights * (known - clean.detach())
            (pull,) = torch.autograd.grad(clean, at, error)
        slopes = {s: slope.detach() for s, slope in slopes.items()}
    else:
        slopes = velocity(noisy)
        pull = weights * (known - (noisy - clock * slopes["action"]))
    highest = min(inpainting.max_weight, 1 / largest_step)
    strength = 1 / clock if inpainting.method == "prefix" else guidance_weight(clock, highest=highest)
    return {**slopes, "action": slopes["action"] - strength * pull}
