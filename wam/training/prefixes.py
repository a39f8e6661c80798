"""Settled actions for training: how many of a chunk are given, and that they are not always what the demonstrator did.

A demonstrator's first actions can be told from what it saw, so a network that is only ever given those does not learn to read
them. What is settled when a plan is late is another chunk's idea, made for what was seen then, and it leaves undone what the
new chunk would have put right first. So settled displacements are pushed aside here, and the rest of the chunk is
taught to make up for what they left undone, at the pace of a proportional controller. The idea of recording how one comes
back from a push is that of DART (Laskey et al. 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from wam.contracts import ActionSpace, expected

PULL = 0.2
"""Of what is left undone, the share that one action makes up for."""


def draw_prefixes(size: int, share: float, longest: int, *, generator: torch.Generator) -> Tensor:
    """(B,) long: for `share` of the rows from 1 to `longest`, each as often, for the others 0."""
    lengths = torch.randint(1, longest + 1, (size,), generator=generator)
    return lengths * (torch.rand(size, generator=generator) < share)


def require_displacements(space: ActionSpace | None) -> ActionSpace:
    """Raises WamError for actions that do not add up, since what they left undone is not known."""
    if space is None or space.kind != "delta":
        raise expected(
            "actions that are displacements, for settled ones that are pushed aside",
            got="an unknown action space" if space is None else f"{space.kind} ones",
            do="set prefix.noise, or prefix_noise of a student, to 0",
        )
    return space


def pushed_aside(
    chunk: Tensor, settled: Tensor, space: ActionSpace, *, noise: float, generator: torch.Generator, pull: float = PULL
) -> Tensor:
    """Chunks (B, K, A), in the action space's units, whose `settled` (B, K) first actions are pushed aside and whose rest makes
    up for it.

    noise: largest spread of a push, in units in which an action's range is -1 to 1; each row draws its own below it, a push
    all settled actions share and one of each. The gripper is left alone. Nothing leaves the space's limits, and what
    limits do not let the rest make up for stays undone.
    """
    size, steps, dim = chunk.shape
    low, high = (torch.tensor(limit, dtype=chunk.dtype, device=chunk.device) for limit in (space.low, space.high))
    moves = torch.tensor([name != space.gripper for name in space.names], device=chunk.device)
    spread = noise * torch.rand(size, 1, 1, generator=generator)
    shared, own = (torch.randn(size, count, dim, generator=generator) for count in (1, steps))
    push = (spread * (shared + own / 2)).to(chunk) * (high - low) / 2 * moves
    out = torch.where(settled[..., None], _within(chunk + push, chunk, low, high), chunk)
    undone = (chunk - out).sum(1)
    actions = []
    for step in range(steps):
        wanted = _within(chunk[:, step] + pull * undone, chunk[:, step], low, high)
        action = torch.where(settled[:, step, None], out[:, step], wanted)
        undone = torch.where(settled[:, step, None], undone, undone - (action - chunk[:, step]))
        actions.append(action)
    return torch.stack(actions, dim=1)


def _within(action: Tensor, before: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Inside the limits, or as far outside as it was before."""
    return action.maximum(torch.minimum(low, before)).minimum(torch.maximum(high, before))
