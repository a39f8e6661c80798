"""A hand may not go into what is occupied, nor through it, but may leave what it already touches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.control.collision import OccupancyVeto
from wam.control.stages import Move

SIDE = 0.1


def move(start: tuple[float, ...], end: tuple[float, ...]) -> Move:
    return Move(action=np.zeros(4), start=np.array(start), end=np.array(end))


def pillar(radius: float = 0.0) -> OccupancyVeto:
    grid = np.zeros((10, 10, 10), bool)
    grid[5, 5, :] = True  # x and y from 0.5 to 0.6
    return OccupancyVeto(grid, origin=np.zeros(3), side=SIDE, radius=radius)


def test_a_move_into_a_voxel_and_one_through_it_are_forbidden() -> None:
    assert pillar()(move((0.3, 0.55, 0.5), (0.55, 0.55, 0.5)))
    assert pillar()(move((0.3, 0.55, 0.5), (0.9, 0.55, 0.5)))
    assert not pillar()(move((0.3, 0.45, 0.5), (0.9, 0.45, 0.5)))


def test_the_hand_has_a_size() -> None:
    past = move((0.3, 0.45, 0.5), (0.9, 0.45, 0.5))
    assert pillar(radius=0.06)(past)
    assert not pillar(radius=0.04)(past)


def test_what_the_hand_touches_already_does_not_freeze_it() -> None:
    inside = (0.55, 0.55, 0.5)
    assert not pillar(radius=0.05)(move(inside, inside))
    assert not pillar(radius=0.05)(move(inside, (0.55, 0.3, 0.5)))
    assert pillar(radius=0.05)(move(inside, (0.55, 0.55, 0.7)))  # deeper into the pillar


def test_outside_the_grid_nothing_is_known_and_nothing_forbidden() -> None:
    assert not pillar()(move((2.0, 2.0, 2.0), (3.0, 2.0, 2.0)))
    assert pillar()(move((-2.0, 0.55, 0.5), (2.0, 0.55, 0.5)))


def test_a_move_whose_ends_are_not_known_is_forbidden() -> None:
    assert pillar()(Move(action=np.zeros(4), start=None, end=np.zeros(3)))
    assert pillar()(Move(action=np.zeros(4), start=np.zeros(3), end=None))


def test_a_newer_grid_takes_its_place() -> None:
    veto, into = pillar(), move((0.3, 0.55, 0.5), (0.55, 0.55, 0.5))
    veto.update(np.zeros((10, 10, 10), bool))
    assert not veto(into)


@given(
    ends=st.lists(st.tuples(*[st.floats(0.0, 1.0)] * 3), min_size=2, max_size=2),
    radius=st.floats(0.0, 0.15),
    voxel=st.tuples(*[st.integers(0, 9)] * 3),
)
def test_it_agrees_with_a_slow_look_at_every_place_of_the_move(
    ends: list[tuple[float, ...]], radius: float, voxel: tuple[int, ...]
) -> None:
    grid = np.zeros((10, 10, 10), bool)
    grid[voxel] = True
    start, end = map(np.array, ends)
    places = start + np.linspace(0, 1, 400)[:, None] * (end - start)
    low = SIDE * np.array(voxel)
    gap = np.linalg.norm(places - np.clip(places, low, low + SIDE), axis=1)
    found = OccupancyVeto(grid, origin=np.zeros(3), side=SIDE, radius=radius)(move(*ends))
    if gap[0] > radius + 1e-9 and gap.min() < radius - SIDE / 8:
        assert found
    if gap[0] < radius - 1e-9 or gap.min() > radius + 1e-9:
        assert not found


def test_grids_that_are_none_are_refused() -> None:
    with pytest.raises(WamError, match="threshold"):
        OccupancyVeto(np.zeros((2, 2, 2)), origin=np.zeros(3), side=1.0)
    with pytest.raises(WamError, match="positive side"):
        OccupancyVeto(np.zeros((2, 2, 2), bool), origin=np.zeros(3), side=0.0)
