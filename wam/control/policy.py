"""What drives a robot: an object that turns observations into chunks of actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from wam.contracts import Observation, expected


@runtime_checkable
class Policy(Protocol):
    """A controller that drives several robots (slots) side by side, so that a network sees one batch.

    chunk: K, the number of actions planned per call.
    """

    chunk: int

    def reset(self, index: int | None = None) -> None:
        """Forget what slot `index` has seen, because a new episode begins there; None forgets all slots."""
        ...

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        """Plan from now on: observations[i] belongs to slot i; returns (B, K, A) float in raw action units.

        Slots are numbered from 0. The sequence may end before the last slot when the last slots have nothing left
        to do; a finished slot in the middle repeats its last observation and its actions are not executed.
        slots: observations[i] belongs to slots[i] instead, no slot twice; slots that are not named are left as they are.
        """
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """A policy that can also show what it expects its actions to bring about."""

    def foresee(self, observation: Observation, actions: np.ndarray, *, slot: int = 0) -> np.ndarray | None:
        """(V, T, H, W, 3) uint8: frames to come if `actions` (K, A) are carried out from `observation` on, which `slot` was
        just asked about; None where the model has no future. Changes nothing that the slot remembers."""
        ...


def stack(observations: Sequence[Observation], cameras: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Observations of one instant each: images (B, V, 1, H, W, 3) uint8 in the order of `cameras`, and states (B, S) float32,
    None where one lacks it. Raises WamError for a missing camera."""
    for observation in observations:
        if missing := [c for c in cameras if c not in observation.images]:
            raise expected(
                f"images of {', '.join(cameras)}",
                got=f"{', '.join(observation.images)}",
                do=f"add {', '.join(missing)}",
            )
    images = np.stack([np.stack([o.images[c] for c in cameras]) for o in observations])[:, :, None]
    states = [o.state for o in observations if o.state is not None]
    return images, np.stack(states).astype(np.float32) if len(states) == len(observations) else None
