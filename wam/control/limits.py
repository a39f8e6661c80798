"""What a robot may be told: the limits that the safety guard holds, as settings that YAML fills in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from wam.contracts import ActionSpace, expected

Three = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A box for the hand, and how actions move it.

    low, high: the box's corners, metres in the world. axes: the dimensions of the action that place or move the hand along
    x, y and z. metres: of one unit of theirs.
    """

    low: Three = (-math.inf,) * 3
    high: Three = (math.inf,) * 3
    axes: tuple[str, str, str] = ("x", "y", "z")
    metres: float = 1.0

    def __post_init__(self) -> None:
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)) or not self.metres > 0:
            raise expected(
                "a workspace whose low corner is below its high one, and units of more than 0 metres",
                got=(self.low, self.high, self.metres),
                do="correct the guard's `workspace`",
            )


@dataclass(frozen=True, kw_only=True)
class GuardLimits:
    """By name of the action's dimension; a dimension that is not named has the action space's limits, or none.

    low, high: in its unit, inside the action space's. velocity, acceleration: units per second and per second squared, either
    way; a displacement counts by what it moves, anything else (a gripper too) by its change. tolerance: by what share of its
    range a number may lie outside and be cut to the limit; what lies farther out is a fault, and holds. early: by what share
    of its period a command may come too soon and still count as on time. max_age: seconds since the observation behind
    a command was taken; 0: any age. watchdog: seconds without a command after which the robot holds; 0: never. latch_after:
    held commands in a row that stop the robot until it is released; 0: never.
    """

    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    velocity: dict[str, float] = field(default_factory=dict)
    acceleration: dict[str, float] = field(default_factory=dict)
    tolerance: float = 0.05
    early: float = 0.2
    workspace: Workspace | None = None
    max_age: float = 0.0
    watchdog: float = 0.0
    latch_after: int = 0

    def __post_init__(self) -> None:
        numbers = (self.tolerance, self.early, self.max_age, self.watchdog, self.latch_after)
        rates = (*self.velocity.values(), *self.acceleration.values())
        if not all(value >= 0 and math.isfinite(value) for value in numbers) or not all(value > 0 for value in rates):
            raise expected(
                "a guard's limits of 0 or more, and velocities and accelerations above 0",
                got=f"tolerance, early, max_age, watchdog, latch_after {numbers}, rates {rates}",
                do="correct them, or leave a rate out where there is no limit",
            )


@dataclass(frozen=True, kw_only=True)
class Rules:
    """`GuardLimits` for one action space, as arrays (A,). moves: dimensions that are displacements. kept: those that a hold
    of displacements leaves as they are. axes: of the hand, or None. period: seconds between commands."""

    low: np.ndarray
    high: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    moves: np.ndarray
    delta: bool
    axes: list[int] | None
    period: float
    limits: GuardLimits

    @classmethod
    def of(cls, space: ActionSpace, limits: GuardLimits, *, rate_hz: float | None = None) -> Rules:
        """rate_hz: of commands, where it is not the action space's: of interpolated ones, each of which may be displaced by
        its share of what an action may.

        Raises WamError on an unknown dimension, on limits that leave nothing or lie outside the action space's, and on
        relative actions.
        """
        if space.kind == "relative":
            raise expected(
                "absolute or delta actions at the robot's interface",
                got="relative ones, which mean nothing without the state at their chunk's start",
                do="add that state to them first",
            )
        named = {*limits.low, *limits.high, *limits.velocity, *limits.acceleration}
        axes = limits.workspace.axes if limits.workspace else ()
        if unknown := sorted({*named, *axes} - set(space.names)):
            raise expected(f"a guard's dimensions among {', '.join(space.names)}", got=unknown, do="rename them")
        low, high = _by_name(space, limits.low, space.low), _by_name(space, limits.high, space.high)
        if (low > high).any() or (low < space.low).any() or (high > space.high).any():
            raise expected(
                "a guard's limits inside the action space's, low below high",
                got=f"low {low.tolist()}, high {high.tolist()}",
                do="correct them",
            )
        delta = space.kind == "delta"
        moves = np.array([delta and name != space.gripper for name in space.names])
        if ((low > 0) | (high < 0))[moves].any():
            raise expected("displacements that may be 0, so that the robot can stop", got=(low, high), do="widen them")
        none = (math.inf,) * space.dim
        period = 1.0 / (rate_hz or space.rate_hz)
        share = np.where(moves, period * space.rate_hz, 1.0)
        return cls(
            low=share * low,
            high=share * high,
            velocity=_by_name(space, limits.velocity, none),
            acceleration=_by_name(space, limits.acceleration, none),
            moves=moves,
            delta=delta,
            axes=[space.names.index(name) for name in axes] or None,
            period=period,
            limits=limits,
        )


def _by_name(space: ActionSpace, given: dict[str, float], otherwise: tuple[float, ...]) -> np.ndarray:
    return np.array([given.get(name, value) for name, value in zip(space.names, otherwise, strict=True)], float)
