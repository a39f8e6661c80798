"""What the safety guard asks of a command, one question after another.

A stage takes a command (A,) and the situation, and returns the same command, one cut to its limits, or None: hold. Stages
about the action also judge chunks that are only planned; stages about the moment judge what is about to be sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wam.control.limits import Rules

ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Move:
    """What a command would do. start, end: of the hand, (3,) metres in the world; None where they are not known."""

    action: np.ndarray
    start: np.ndarray | None
    end: np.ndarray | None


Veto = Callable[[Move], bool]
"""True where a move must not be made."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """In which a command is judged.

    last (A,): the command sent before, or where the robot stands; velocity (A,): of that command, units per second. dt:
    seconds that this one has. position: of the hand now, (3,) metres, or None. age: seconds since the observation behind the
    command, None if nobody says. replayed: it comes from an older observation than a command before it. silence: seconds since
    the command before, stopped: why the robot is to stand still, or "".
    """

    rules: Rules
    last: np.ndarray
    velocity: np.ndarray
    dt: float
    position: np.ndarray | None = None
    veto: Veto | None = None
    age: float | None = None
    replayed: bool = False
    silence: float = 0.0
    stopped: str = ""

    def displacement(self, command: np.ndarray) -> np.ndarray:
        """(A,): what each dimension moves, or how far it changes."""
        return np.where(self.rules.moves, command, command - self.last)


Stage = Callable[[Any, Situation], "np.ndarray | None"]


def as_numbers(value: Any) -> np.ndarray | None:
    """A float64 array, or None where `value` is not made of real numbers. What is asked for numbers may fail in any way."""
    try:
        found = np.asarray(value)
        return found.astype(np.float64) if found.dtype.kind in "fiu" else None
    except Exception:
        return None


def finite(command: Any, at: Situation) -> Any:
    numbers = as_numbers(command)
    return command if numbers is None or np.isfinite(numbers).all() else None


def shape(command: Any, at: Situation) -> np.ndarray | None:
    """Shape (A,) and a real dtype."""
    numbers = as_numbers(command)
    return numbers if numbers is not None and numbers.shape == at.rules.low.shape else None


def position(command: np.ndarray, at: Situation) -> np.ndarray | None:
    """Cut what lies barely outside; what lies far outside is no action."""
    rules = at.rules
    inside = np.clip(command, rules.low, rules.high)
    if (np.abs(command - inside) > rules.limits.tolerance * (rules.high - rules.low)).any():
        return None
    return _unless_same(command, inside)


def velocity(command: np.ndarray, at: Situation) -> np.ndarray:
    return _moved(command, at, high=_times(at.rules.velocity, at.dt), low=-_times(at.rules.velocity, at.dt))


def acceleration(command: np.ndarray, at: Situation) -> np.ndarray:
    """Only where it speeds up: a robot may always slow down and stop."""
    gain = _times(at.rules.acceleration, at.dt)
    return _moved(
        command,
        at,
        low=_times(np.minimum(at.velocity, 0) - gain, at.dt),
        high=_times(np.maximum(at.velocity, 0) + gain, at.dt),
    )


def workspace(command: np.ndarray, at: Situation) -> np.ndarray | None:
    """A hand that is outside may come back, and only that."""
    box = at.rules.limits.workspace
    if box is None:
        return command
    start, end = hand_move(command, at)
    if end is None:
        return None
    leaves = np.maximum(np.maximum(np.subtract(box.low, end), np.subtract(end, box.high)), 0)
    if not leaves.any():
        return command
    assert start is not None
    was = np.maximum(np.maximum(np.subtract(box.low, start), np.subtract(start, box.high)), 0)
    return command if (leaves <= was).all() and (leaves < was).any() else None


def collision(command: np.ndarray, at: Situation) -> np.ndarray | None:
    """A check that fails says nothing good of the move."""
    if at.veto is None:
        return command
    start, end = hand_move(command, at)
    try:
        return None if at.veto(Move(action=command, start=start, end=end)) else command
    except Exception:
        return None


def age(command: np.ndarray, at: Situation) -> np.ndarray | None:
    if at.replayed:
        return None
    longest = at.rules.limits.max_age
    if not longest:
        return command
    return command if at.age is not None and 0 <= at.age <= longest else None


def underrun(command: np.ndarray | None, at: Situation) -> np.ndarray | None:
    return command


def watchdog(command: np.ndarray, at: Situation) -> np.ndarray | None:
    """The first command after a silence holds too: what it was meant for is over."""
    longest = at.rules.limits.watchdog
    return None if longest and at.silence > longest else command


def estop(command: np.ndarray, at: Situation) -> np.ndarray | None:
    return None if at.stopped else command


OF_THE_ACTION: tuple[Stage, ...] = (finite, shape, position, velocity, acceleration, workspace, collision)
OF_THE_MOMENT: tuple[Stage, ...] = (age, underrun, watchdog, estop)
REASONS = tuple(stage.__name__ for stage in (*OF_THE_ACTION, *OF_THE_MOMENT))


def hand_move(command: np.ndarray, at: Situation) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(3,) each, metres: where the hand is and where the command takes it; None where that is not known."""
    rules, start = at.rules, at.position
    if rules.axes is None or rules.limits.workspace is None:
        return start, None
    metres = rules.limits.workspace.metres
    if not rules.delta:
        return metres * at.last[rules.axes] if start is None else start, metres * command[rules.axes]
    return start, None if start is None else start + metres * command[rules.axes]


def _moved(command: np.ndarray, at: Situation, *, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The command with its displacement between low and high (A,), between which 0 lies."""
    wanted = at.displacement(command)
    slack = ROUNDING * (1 + np.abs(wanted))
    over = (wanted < low - slack) | (wanted > high + slack)
    if not over.any():
        return command
    cut = np.clip(wanted, low, high)
    return np.where(over, np.where(at.rules.moves, cut, at.last + cut), command)


def _times(limit: np.ndarray, dt: float) -> np.ndarray:
    """limit * dt, infinite where there is no limit, even in no time."""
    return np.where(np.isinf(limit), limit, np.where(np.isinf(limit), 0, limit) * dt)


def _unless_same(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return before if np.array_equal(before, after) else after
