"""Constraints between named points, as costs: the hand comes from above, the cup stays over the tray, two things meet.

    points = tracks(lagging(motion, start, velocity), fixed={"handle": handle})
    from_above = either(over("hand", "handle", within=0.02), above("hand", "handle", by=0.08))
    chunk = model.policy(batch, steering=Steering(cost=on_path(from_above, points))).action

A constraint looks at the points of every step and says by how many metres it is missed, 0 or less where it holds. Source: ReKep
(Huang et al. 2024), whose constraints are such functions of keypoints, kept along a stage's path or at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from wam.contracts import expected
from wam.control.ways import Way
from wam.model.steering import Cost
from wam.model.wam import Sample

HAND = "hand"
Points = Mapping[str, Tensor]
"""Name -> (B, K, 3): where a point is after each step of the chunk, in the world."""
Tracks = Callable[[Tensor], Points]
Constraint = Callable[[Points], Tensor]
"""Points -> (B, K): metres missing."""


def tracks(
    way: Way,
    *,
    fixed: Mapping[str, Sequence[float] | Tensor] | None = None,
    held: Mapping[str, Sequence[float] | Tensor] | None = None,
) -> Tracks:
    """Where named points go with a chunk: `hand` along its way, `fixed` ones (3,) or (B, 3) stay, `held` ones keep their offset
    (3,) or (B, 3) from the hand, which does not turn."""
    there, offsets = ({name: torch.as_tensor(place) for name, place in (own or {}).items()} for own in (fixed, held))
    names = [HAND, *there, *offsets]
    if len(set(names)) != len(names):
        raise expected("names that differ", got=names, do=f"rename the repeated one; {HAND!r} is the hand's own")

    def follow(actions: Tensor) -> Points:
        hand = way(actions)
        resting = {name: _each(place, hand).expand_as(hand) for name, place in there.items()}
        return {HAND: hand, **resting, **{name: hand + _each(offset, hand) for name, offset in offsets.items()}}

    return follow


def above(upper: str, lower: str, *, by: float = 0.0) -> Constraint:
    """One point is at least so many metres higher than another."""
    return lambda points: _of(points, lower)[..., 2] + by - _of(points, upper)[..., 2]


def over(one: str, other: str, *, within: float) -> Constraint:
    """Two points lie above each other, whichever is higher, to so many metres along the table."""
    return lambda points: _apart(points, one, other, axes=2) - within


def near(one: str, other: str, *, within: float) -> Constraint:
    """Two points are at most so many metres apart."""
    return lambda points: _apart(points, one, other) - within


def apart(one: str, other: str, *, by: float) -> Constraint:
    """Two points are at least so many metres apart."""
    return lambda points: by - _apart(points, one, other)


def either(*constraints: Constraint) -> Constraint:
    """At each step, one of them holds: the one that is missed by least."""
    return lambda points: torch.stack([one(points) for one in constraints]).amin(0)


def both(*constraints: Constraint) -> Constraint:
    """At each step, all of them hold: the one that is missed by most."""
    return lambda points: torch.stack([one(points) for one in constraints]).amax(0)


def on_path(constraint: Constraint, follow: Tracks) -> Cost:
    """What is missed at every step, summed."""
    return lambda sample: constraint(follow(_action(sample))).clamp_min(0).sum(1)


def at_end(constraint: Constraint, follow: Tracks) -> Cost:
    """What is missed after the last step."""
    return lambda sample: constraint(follow(_action(sample)))[:, -1].clamp_min(0)


def _each(place: Tensor, hand: Tensor) -> Tensor:
    """(3,) or (B, 3) -> (1 or B, 1, 3)."""
    if place.shape not in ((3,), (len(hand), 3)):
        raise expected(f"a point (3,), or one for each of {len(hand)} rows", got=tuple(place.shape), do="give metres")
    return place.to(hand).reshape(-1, 1, 3)


def _of(points: Points, name: str) -> Tensor:
    if name not in points:
        raise expected(f"a point among {', '.join(points)}", got=repr(name), do="name it in `tracks`")
    return points[name]


def _apart(points: Points, one: str, other: str, *, axes: int = 3) -> Tensor:
    between = _of(points, one) - _of(points, other)
    return torch.linalg.vector_norm(between[..., :axes], dim=-1)


def _action(sample: Sample) -> Tensor:
    if sample.action is None:
        raise expected("a sample with an action", got="none", do="want the action")
    return sample.action
