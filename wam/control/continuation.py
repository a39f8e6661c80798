"""Chunks that go on where the one before is: what is left of it, and how far the next may differ.

Source: Black, Galliker and Levine 2025, "Real-Time Execution of Action Chunking Flow Policies" (real-time chunking, RTC). While
a new chunk is computed, d actions of the old one are carried out: those are settled, and the new chunk must agree with
them. The rest of the old chunk is a promise that counts less the farther ahead it lies. A policy that learned in training to
go on from settled actions needs no such promise (Black et al. 2025, training-time action conditioning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np

from wam.contracts import ActionSpace, Observation, expected
from wam.control.policy import Policy

Method = Literal["guided", "prefix", "blend"]
METHODS: tuple[str, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What the chunk under way still holds when the next is planned.

    actions (R, A): in raw units, the first of them taken now. delay: d, how many of them will be over when the next chunk
    comes. method: how the next chunk is made to agree. `guided`: a sampler is pulled towards all that is left, softly;
    `prefix`: it is given the first d actions as fixed, as in training where a model was trained so; `blend`: the chunk is mixed
    with it afterwards, which any policy can.
    """

    actions: np.ndarray
    delay: int
    method: Method = "guided"

    def __post_init__(self) -> None:
        if self.method not in METHODS or not 0 <= self.delay <= len(self.actions) or not len(self.actions):
            raise expected(
                f"a method among {', '.join(METHODS)} and a delay of at most the actions that are left",
                got=f"{self.method!r}, delay {self.delay} of {len(self.actions)}",
                do="correct them",
            )

    def weights(self, chunk: int) -> np.ndarray:
        """(K,): how much each action of the next chunk is bound to what is left: 1 is settled, 0 is free."""
        if self.method == "prefix":
            return (np.arange(chunk) < self.delay).astype(float)
        return soft_mask(chunk, delay=self.delay, left=len(self.actions))


@runtime_checkable
class ContinuingPolicy(Policy, Protocol):
    """A policy whose chunks can be drawn so that they agree with what is left of the ones before."""

    def continue_from(self, observations: Sequence[Observation], left: Sequence[Continuation | None]) -> np.ndarray:
        """As `act`: left[i] is what slot i is carrying out, None where there is nothing; (B, K, A)."""
        ...


def soft_mask(chunk: int, *, delay: int, left: int) -> np.ndarray:
    """(K,): 1 over the first `delay` actions, falling to 0 at the end of the `left` ones, 0 beyond: the paper's soft mask,
    with all that is left in place of its execution horizon."""
    ahead = np.arange(chunk)
    c = np.clip((left - ahead) / (left - delay + 1), 0, 1)
    return np.where(ahead < min(delay, left), 1.0, c * np.expm1(c) / np.expm1(1))


def require_continuable(space: ActionSpace | None) -> None:
    """Raises WamError for actions that count from the state at their chunk's start, which is another for each chunk."""
    if space is not None and space.kind == "relative":
        raise expected("absolute or delta actions to continue", got="relative ones", do="use executor `synchronous`")


def stacked(left: Sequence[Continuation | None], *, chunk: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """What each slot is carrying out (B, K, A), and how much the next chunk is bound to it (B, K): 0 where there is nothing."""
    actions, weights = np.zeros((len(left), chunk, dim), np.float32), np.zeros((len(left), chunk), np.float32)
    for row, one in enumerate(left):
        if one is not None:
            known = min(chunk, len(one.actions))
            actions[row, :known], weights[row] = one.actions[:known], one.weights(chunk)
    return actions, weights


def blend(chunk: np.ndarray, left: Continuation) -> np.ndarray:
    """A chunk (K, A) mixed with what is left by the soft mask: what guided inpainting comes to in a sampler of one step."""
    known = min(len(chunk), len(left.actions))
    weights = left.weights(len(chunk))[:known, None]
    mixed = chunk.copy()
    mixed[:known] += weights * (left.actions[:known] - chunk[:known])
    return mixed


def planned(policy: Policy, observation: Observation, left: Continuation | None) -> np.ndarray:
    """The next chunk (K, A) for one observation. Raises WamError if the policy cannot continue in the way asked for."""
    if left is None or left.method == "blend":
        chunk = np.asarray(policy.act([observation]))
    elif isinstance(policy, ContinuingPolicy):
        chunk = np.asarray(policy.continue_from([observation], [left]))
    else:
        raise cannot_continue(policy, left.method)
    if chunk.ndim != 3 or chunk.shape[:2] != (1, policy.chunk):
        raise expected(f"a chunk of shape (1, {policy.chunk}, A)", got=chunk.shape, do="check the policy's output")
    return blend(chunk[0], left) if left is not None and left.method == "blend" else chunk[0]


def cannot_continue(policy: object, method: str) -> Exception:
    return expected(
        f"a policy that can continue chunks by {method!r}",
        got=type(policy).__name__,
        do="give it `continue_from`, or use the method 'blend'",
    )
