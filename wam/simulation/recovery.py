"""Noise that pushes an expert off its path, so that demonstrations show how to come back.

Each episode has its own noise level; now and then a burst pushes one way for a few steps. The action that is
executed, noise and all, is the one to record.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam.contracts import ActionSpace, expected


@dataclass(frozen=True, kw_only=True)
class RecoveryNoise:
    """level: range of the standard deviation, of which an episode draws one; burst_rate: bursts a step;
    burst_steps: range of their length; burst_size: range of their strength. All in shares of half the action range."""

    level: tuple[float, float] = (0.05, 0.25)
    burst_rate: float = 0.03
    burst_steps: tuple[int, int] = (3, 6)
    burst_size: tuple[float, float] = (0.4, 1.0)

    def __post_init__(self) -> None:
        for name in ("level", "burst_steps", "burst_size"):
            low, high = getattr(self, name)
            object.__setattr__(self, name, (low, high))
            if not 0 <= low <= high:
                raise expected(f"a range {name} with 0 <= low <= high", got=(low, high), do="put the smaller one first")
        if not 0 <= self.burst_rate <= 1:
            raise expected("a burst_rate between 0 and 1", got=self.burst_rate, do="give a share of steps")


class Disturbance:
    """The noise of one episode; all chance comes from `rng`. The gripper is left alone."""

    def __init__(self, noise: RecoveryNoise, space: ActionSpace, rng: np.random.Generator) -> None:
        self.noise, self.rng = noise, rng
        self.low, self.high = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
        self.moves = np.array([name != space.gripper for name in space.names])
        self.level = rng.uniform(*noise.level)
        self._push, self._left = np.zeros(space.dim), 0

    def applied(self, action: np.ndarray) -> np.ndarray:
        """The action (A,) with noise, inside the limits, float32."""
        if self._left == 0:
            self._push[:] = 0
            if self.rng.random() < self.noise.burst_rate:
                direction = self.rng.normal(size=len(self._push)) * self.moves
                size = self.rng.uniform(*self.noise.burst_size)
                self._push = size * direction / np.linalg.norm(direction)
                self._left = int(self.rng.integers(*self.noise.burst_steps, endpoint=True)) - 1
        else:
            self._left -= 1
        shaken = self._push + self.rng.normal(scale=self.level, size=len(self._push)) * self.moves
        return np.clip(action + shaken * (self.high - self.low) / 2, self.low, self.high).astype(np.float32)
