"""Stands at the robot's interface and says which commands should never have come. It shares no code with the guard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam.control.limits import GuardLimits, Workspace

EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What was true when a command was sent. time: seconds; hand (3,): where it really was, metres. must_hold: why nothing but
    a hold may be sent, or ""."""

    time: float
    hand: np.ndarray
    must_hold: str = ""


class Judge:
    """Counts nothing, believes nothing: recomputes from the commands that were sent what they make the robot do.

    low, high (A,): limits of a command. displaced: which dimensions (A,) bool are displacements. limits: the rates and the
    workspace, of dimensions `names`; boxes (N, 3): the low corners of occupied voxels of `side` metres, radius: of the hand.
    """

    def __init__(
        self,
        *,
        names: tuple[str, ...],
        low: np.ndarray,
        high: np.ndarray,
        displaced: np.ndarray,
        period: float,
        limits: GuardLimits,
        boxes: np.ndarray,
        side: float,
        radius: float,
    ) -> None:
        assert limits.workspace is not None
        self.low, self.high, self.displaced, self.period, self.limits = low, high, displaced, period, limits
        self.room: Workspace = limits.workspace
        self.fastest = [limits.velocity.get(name, np.inf) for name in names]
        self.gains = [limits.acceleration.get(name, np.inf) for name in names]
        self.axes = [names.index(name) for name in self.room.axes]
        self.boxes, self.side, self.radius = boxes, side, radius
        self.reset(np.zeros(len(names)))

    def reset(self, start: np.ndarray) -> None:
        self.before, self.speed = np.array(start, float), np.zeros(len(start))
        self.time: float | None = None

    def faults(self, command: object, moment: Moment) -> list[str]:
        """What is wrong with a command that reached the robot."""
        if not isinstance(command, np.ndarray) or command.dtype != np.float64 or command.shape != self.low.shape:
            return ["no action"]
        if not all(np.isfinite(value) for value in command.tolist()):
            return ["not finite"]
        elapsed = self.period if self.time is None else moment.time - self.time
        dt = self.period if elapsed >= (1 - self.limits.early) * self.period else max(elapsed, 0.0)
        moved = np.array([c if d else c - b for c, d, b in zip(command, self.displaced, self.before, strict=True)])
        found = [] if not moved.any() else self._moving(command, moved, dt, elapsed, moment)
        self.speed = moved / dt if dt > 0 else np.zeros_like(moved)
        self.before, self.time = command, moment.time
        return found

    def _moving(self, command: np.ndarray, moved: np.ndarray, dt: float, elapsed: float, moment: Moment) -> list[str]:
        found = [moment.must_hold] if moment.must_hold else []
        if self.limits.watchdog and elapsed > self.limits.watchdog:
            found.append("moved after a silence")
        if any(not a - EPSILON <= c <= b + EPSILON for a, c, b in zip(self.low, command, self.high, strict=True)):
            found.append("outside its limits")
        for way, was, fastest, gain in zip(moved, self.speed, self.fastest, self.gains, strict=True):
            if abs(way) > fastest * dt * (1 + EPSILON) + EPSILON * self.period:
                found.append("too fast")
            same_way = was if was * way > 0 else 0.0
            if (
                np.isfinite(gain)
                and abs(way) > (abs(same_way) + gain * dt) * dt * (1 + EPSILON) + EPSILON * self.period
            ):
                found.append("speeds up too much")
        end = self.room.metres * command[self.axes]
        end = moment.hand + end if self.displaced[self.axes].all() else end
        over, was_over = self._beyond(end), self._beyond(moment.hand)
        if max(over) > EPSILON and any(now > then for now, then in zip(over, was_over, strict=True)):
            found.append("leaves the workspace")
        if self._hits(moment.hand, end):
            found.append("hits what is occupied")
        return found

    def _beyond(self, point: np.ndarray) -> list[float]:
        return [max(a - p, p - b, 0.0) for a, p, b in zip(self.room.low, point, self.room.high, strict=True)]

    def _hits(self, start: np.ndarray, end: np.ndarray) -> bool:
        """Looks at 32 places of the move; less than an eighth of a voxel's side of overlap is let pass."""
        deep = self.radius - self.side / 8
        ways = start + np.linspace(0, 1, 33)[:, None] * (end - start)
        middles = self.boxes + self.side / 2
        gaps = np.maximum(np.abs(ways[:, None] - middles) - self.side / 2, 0).clip(max=10 * deep)
        distances = np.sqrt((gaps**2).sum(-1))
        return bool(((distances < deep).any(0) & (distances[0] > self.radius)).any())
