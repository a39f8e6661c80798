"""What drives a robot: an object that turns observations into chunks of actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from wam.contracts import Observation


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
