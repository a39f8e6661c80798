"""Play: smooth random motion, so that the action does not follow from the frame, mixed with stretches of the expert.

A world model that sees experts only can guess the action from the picture and learns to ignore it; play breaks
that tie.
"""

from __future__ import annotations

import numpy as np

from wam.contracts import WamError
from wam.simulation.environment import Environment

HOLD = (4, 10)  # steps a random action is held
EXPERT_HOLD = (8, 24)  # steps an expert takes over
EXPERT_SHARE = 0.25  # of the time
#: Where a hand that wanders is turned back (x, y, z in metres): what the cameras see of the table.
_PEN = np.array([[-0.30, 0.45, 0.05], [0.30, 0.85, 0.33]])
_SMOOTHING = 0.5
_REACH = 0.25  # of the range: how far an absolute target may lie from the present


class Play:
    """A random policy for one episode of one environment; all chance comes from `rng`. expert_share: of the time."""

    def __init__(
        self, environment: Environment, rng: np.random.Generator, *, expert_share: float = EXPERT_SHARE
    ) -> None:
        self.expert_share = expert_share
        self.environment, self.rng, space = environment, rng, environment.action_space
        self.low, self.high = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
        self.absolute = space.kind == "absolute"
        self.gripper = space.names.index(space.gripper) if space.gripper else None
        self._left = 0
        self._expert_turn = False
        self._target = np.zeros(space.dim, np.float32)
        self._last = np.zeros(space.dim, np.float32)
        self._has_expert = _has_expert(environment)

    def action(self) -> np.ndarray:
        """The next action (A,) float32."""
        state = self.environment.robot_state()
        if self._left == 0:
            self._choose(state)
        self._left -= 1
        if self._expert_turn:
            action = self.environment.expert_action()
        elif self.absolute:
            action = self._target
        else:
            action = _SMOOTHING * self._last + (1 - _SMOOTHING) * self._penned(self._target, state)
        self._last = np.clip(action, self.low, self.high).astype(np.float32)
        return self._last

    def _choose(self, state: np.ndarray) -> None:
        mean, expert_mean = np.mean(HOLD), np.mean(EXPERT_HOLD)
        share = self.expert_share
        turns = share * mean / (share * mean + (1 - share) * expert_mean)
        self._expert_turn = self._has_expert and bool(self.rng.random() < turns)
        self._left = int(self.rng.integers(*(EXPERT_HOLD if self._expert_turn else HOLD), endpoint=True))
        before, span = self._target, self.high - self.low
        if self.absolute:
            offset = self.rng.uniform(-_REACH, _REACH, len(span)) * span
            self._target = np.clip(state[: len(span)] + offset, self.low, self.high).astype(np.float32)
            return
        self._target = self.rng.uniform(self.low, self.high).astype(np.float32)
        if self.gripper is not None:
            wanted = self.rng.choice([self.low[self.gripper], self.high[self.gripper]])
            self._target[self.gripper] = wanted if self.rng.random() < 0.4 else before[self.gripper]

    @staticmethod
    def _penned(target: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The target with the components turned that lead further out of the pen."""
        turned = target.copy()
        hand, limits = state[:3], _PEN
        turned[:3] = np.where(hand < limits[0], np.abs(target[:3]), turned[:3])
        turned[:3] = np.where(hand > limits[1], -np.abs(target[:3]), turned[:3])
        return turned


def _has_expert(environment: Environment) -> bool:
    try:
        environment.expert_action()
    except WamError:
        return False
    return True
