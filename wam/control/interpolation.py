"""More commands than actions: a policy at tens of hertz, a robot that wants up to 200.

A displacement is shared out among its commands, which together move what it moves: over them the hand goes along a straight
line. An absolute target is approached in equal parts (`linear`) or given at once and repeated (`hold`). A gripper among
displacements is no displacement, and is repeated. Source of the idea: Helix (Figure 2025), whose slow system is interpolated.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from wam.contracts import ActionSpace, expected

HIGHEST_HZ = 200.0


class Interpolator:
    """`parts` commands for each action, `rate_hz` of them a second: the highest whole multiple of the actions' rate that is
    at most the one asked for."""

    def __init__(
        self, space: ActionSpace, *, rate_hz: float = HIGHEST_HZ, absolute: Literal["linear", "hold"] = "linear"
    ) -> None:
        if not space.rate_hz <= rate_hz <= HIGHEST_HZ:
            raise expected(
                f"a rate from the actions' {space.rate_hz:g} to {HIGHEST_HZ:g} Hz", got=rate_hz, do="choose another"
            )
        if space.kind == "relative" or absolute not in ("linear", "hold"):
            raise expected(
                "absolute or delta actions, interpolated by linear or hold",
                got=f"{space.kind}, {absolute!r}",
                do="add the state at the chunk's start to relative ones",
            )
        self.parts = int(rate_hz / space.rate_hz + 1e-9)
        self.rate_hz = self.parts * space.rate_hz
        delta = space.kind == "delta"
        self._shared = np.array([delta and name != space.gripper for name in space.names])
        self._ramped = not delta and absolute == "linear"

    def commands(self, action: np.ndarray, before: np.ndarray) -> np.ndarray:
        """(parts, A) for an action (A,), given the command before it (A,)."""
        if self._ramped:
            ahead = np.arange(1, self.parts + 1)[:, None] / self.parts
            ramp = before + ahead * (action - before)
            ramp[-1] = action
            return ramp
        return np.tile(np.where(self._shared, action / self.parts, action), (self.parts, 1))
