"""A chunk that would enter a box gives way, sideways or upwards, and one that would not stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from wam.contracts import WamError
from wam.control.keep_out import Box, LinearMotion, keep_out
from wam.model.steering import Steering, descend
from wam.model.wam import Sample

BOX = Box(low=(0.1, -0.05, 0.0), high=(0.2, 0.05, 0.1))
STEPS = 6
STILL = torch.zeros(1, 3)
MOTION = LinearMotion(
    weights=0.05 * np.concatenate([np.tril(np.ones((STEPS, STEPS))), np.zeros((STEPS, 1))], 1)[None].repeat(3, 0)
)


def straight(start: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Along x, 5 cm a step."""
    chunk = torch.zeros(1, STEPS, 4)
    chunk[..., 0] = 1.0
    return torch.tensor([start]), chunk


def way(start: Tensor, chunk: Tensor) -> np.ndarray:
    return MOTION.way(start, STILL, chunk)[0].numpy()


@pytest.mark.parametrize(
    ("start", "axis", "sign"), [((0.0, 0.04, 0.05), 1, 1), ((0.0, -0.04, 0.05), 1, -1), ((0.0, 0, 0.09), 2, 1)]
)
def test_a_chunk_gives_way_to_the_nearest_side(start: tuple[float, float, float], axis: int, sign: int) -> None:
    begin, chunk = straight(start)
    assert BOX.holds(way(begin, chunk)).any()
    steering = Steering(cost=keep_out([BOX], MOTION, begin, STILL), steps=40)
    found = descend(chunk, lambda action: Sample(action=action), steering)
    assert not BOX.holds(way(begin, found)).any()
    moved = way(begin, found)[-1] - way(begin, chunk)[-1]
    assert np.argmax(np.abs(moved)) == axis
    assert np.sign(moved[axis]) == sign
    assert way(begin, found)[-1, 0] > 0.2  # it goes on


def test_a_box_low_on_the_table_is_never_left_downwards() -> None:
    begin, chunk = straight((0.0, 0.0, 0.005))
    found = descend(
        chunk, lambda action: Sample(action=action), Steering(cost=keep_out([BOX], MOTION, begin, STILL), steps=40)
    )
    assert not BOX.holds(way(begin, found)).any()
    assert way(begin, found)[:, 2].min() >= 0.005 - 1e-6


def test_a_chunk_that_stays_clear_costs_nothing() -> None:
    begin, chunk = straight((0.0, 0.2, 0.05))
    assert keep_out([BOX], MOTION, begin, STILL)(Sample(action=chunk)).item() == 0


def test_a_lagging_hand_is_learned_from_its_ways_and_needs_motion() -> None:
    rng = np.random.default_rng(0)
    actions, velocity = rng.uniform(-1, 1, (200, STEPS, 4)), rng.normal(size=(200, 3))
    ways, speed = [np.zeros((200, 3))], 0.02 * velocity
    for step in range(STEPS):
        speed = 0.6 * speed + 0.4 * 0.05 * actions[:, step, :3]
        ways.append(ways[-1] + speed)
    found = LinearMotion.fit(np.stack(ways, axis=1), actions, velocity)
    told = [torch.from_numpy(x) for x in (ways[0], velocity, actions)]
    np.testing.assert_allclose(found.way(*told).numpy(), np.stack(ways[1:], axis=1), atol=1e-9)
    with pytest.raises(WamError, match="every axis"):
        LinearMotion.fit(np.stack(ways, axis=1), np.zeros_like(actions), velocity)


def test_a_hand_in_full_swing_before_the_box_stops() -> None:
    begin, chunk = straight((0.095, 0.0, 0.05))
    chunk = 0.06 * chunk  # it barely enters, and no side is near
    found = descend(
        chunk, lambda action: Sample(action=action), Steering(cost=keep_out([BOX], MOTION, begin, STILL), steps=40)
    )
    assert not BOX.holds(way(begin, found)).any()
    assert abs(way(begin, found)[-1, 1]) < 0.01


def test_a_box_inside_out_is_refused() -> None:
    with pytest.raises(WamError, match="below its high one"):
        Box(low=(0, 0, 0), high=(1, 1, 0))
