"""Where a chunk leads the hand: what costs of places look at.

A way turns chunks (B, K, A) into points (B, K, 3), with gradients. How a hand follows its commands depends on the robot, so the
caller says it: at once, late as a robot that was fitted, or to absolute places. Two numbers are points of a plane, whose third
is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from wam.contracts import expected
from wam.control.keep_out import LinearMotion

Way = Callable[[Tensor], Tensor]


def displaced(start: Tensor, *, scale: float, columns: Sequence[int] = (0, 1, 2)) -> Way:
    """A hand that each action moves at once. start (B, 2 or 3): where it is now; scale: metres a unit of the actions'
    `columns`."""
    begin = _points(start)

    def way(actions: Tensor) -> Tensor:
        return begin[:, None] + scale * _points(_chosen(actions, columns)).cumsum(1)

    return way


def lagging(motion: LinearMotion, start: Tensor, velocity: Tensor) -> Way:
    """A hand that lags behind displacements as `motion` was fitted to. start, velocity (B, 3): of the hand now."""

    def way(actions: Tensor) -> Tensor:
        return motion.way(start, velocity, actions)

    return way


def placed(*, scale: float = 1.0, columns: Sequence[int] = (0, 1, 2)) -> Way:
    """A hand that is where its actions say. scale: metres a unit of the actions' `columns`."""

    def way(actions: Tensor) -> Tensor:
        return scale * _points(_chosen(actions, columns))

    return way


def _chosen(actions: Tensor, columns: Sequence[int]) -> Tensor:
    if max(columns, default=0) >= actions.shape[-1]:
        raise expected(
            f"actions with columns {list(columns)}",
            got=f"{actions.shape[-1]} of them",
            do="name those that move the hand",
        )
    return actions[..., list(columns)]


def _points(numbers: Tensor) -> Tensor:
    if numbers.shape[-1] not in (2, 3):
        raise expected("points of 2 or 3 numbers", got=numbers.shape[-1], do="name the columns that are a place")
    return F.pad(numbers, (0, 3 - numbers.shape[-1]))
