"""What executors and the guard are tested with: time that tests set, a policy that says what it saw, a robot that notes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam.contracts import ActionSpace, Observation
from wam.control.continuation import Continuation

NAMES = ("x", "y", "z", "gripper")


def space(kind: str = "delta", *, rate_hz: float = 20, gripper: str | None = "gripper") -> ActionSpace:
    return ActionSpace(
        names=NAMES, units=("m",) * 4, low=(-1.0,) * 4, high=(1.0,) * 4, kind=kind, rate_hz=rate_hz, gripper=gripper
    )  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def seen(tick: int = 0) -> Observation:
    return Observation(images={}, state=np.array([tick], np.float32))


class Counting:
    """Chunks whose entries say from when they are: action i of a plan from tick t is [t, t + i, plan's number, 0] / 1000."""

    chunk = 8

    def __init__(self) -> None:
        self.plans, self.resets = 0, 0

    def reset(self, index: int | None = None) -> None:
        self.resets += 1

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        (one,) = observations
        assert one.state is not None
        start, ahead = float(one.state[0]), np.arange(self.chunk)
        found = np.stack([np.full(self.chunk, start), start + ahead, np.full(self.chunk, self.plans), 0 * ahead], 1)
        self.plans += 1
        return found[None] / 1000


class Continuing(Counting):
    """The same, noting what it was to continue."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[Continuation | None] = []

    def continue_from(self, observations: Sequence[Observation], left: Sequence[Continuation | None]) -> np.ndarray:
        self.left.extend(left)
        return self.act(observations)
