"""A box is passed on the outside of the way that the policy dreams, and kept to that side."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.control.test_keep_out import BOX, MOTION, STEPS, STILL, straight, way
from tests.model.conftest import make_model
from tests.model.test_student import make_student
from wam.contracts import ActionSpace, Observation, WamError
from wam.control.keep_out import SIDES, Box, LinearMotion, Side, keep_out
from wam.control.passing import dreamed_way, outer_side
from wam.control.wam_policy import WamPolicy
from wam.model.steering import Steering, descend
from wam.model.wam import Sample

TURNS = np.linspace(0, np.pi, 41)


@pytest.mark.parametrize(("swing", "side"), [(0.1, "+x"), (-0.1, "-x")])
def test_a_box_is_passed_on_the_outside_of_the_curve(swing: float, side: Side) -> None:
    curve = np.column_stack([swing * np.sin(TURNS), np.linspace(0, 0.4, 41), np.full(41, 0.2)])
    middle = curve[20]
    assert outer_side(curve, Box(low=tuple(middle - 0.03), high=tuple(middle + 0.03))) == side
    turned = curve[:, [1, 0, 2]]
    box = Box(low=tuple(turned[20] - 0.03), high=tuple(turned[20] + 0.03))
    assert outer_side(turned, box) == side.replace("x", "y")


@pytest.mark.parametrize("side", ["-y", "+y", "+z"])
def test_a_chunk_keeps_to_the_side_that_is_named(side: Side) -> None:
    begin, chunk = straight((0.0, 0.01, 0.04))
    cost = keep_out([BOX], MOTION, begin, STILL, sides=[side])
    found = descend(chunk, lambda action: Sample(action=action), Steering(cost=cost, steps=80))
    assert not BOX.holds(way(begin, found)).any()
    axis, sign = SIDES.index(side) % 3, 1 if side[0] == "+" else -1
    moved = way(begin, found)[-1] - way(begin, chunk)[-1]
    assert sign * moved[axis] > 0.03
    assert -0.03 < moved[0] <= 0  # it may slow down, to swing out in time
    assert moved[3 - axis] == 0


def test_a_hand_with_no_room_to_swing_out_slows_down_and_does_not_cut_the_corner() -> None:
    """It sees the box late, on the wrong side of it, and cannot get over at the speed at which it comes."""
    begin = torch.tensor([[-0.02, -0.04, 0.05]])
    chunk = torch.tensor([0.8, 0.0, 0.0, 0.0]).expand(1, STEPS, 4).clone()
    cost = keep_out([BOX], MOTION, begin, STILL, margin=0.02, sides=["+y"])

    def limited(action: Tensor) -> Sample:
        return Sample(action=action.clamp(-1, 1))

    found = limited(descend(chunk, limited, Steering(cost=cost, steps=80))).action
    assert found is not None
    fine = np.concatenate(
        [np.linspace(a, b, 20) for a, b in itertools.pairwise([begin[0].numpy(), *way(begin, found)])]
    )
    assert not BOX.holds(fine).any()
    there = way(begin, found)
    assert there[-1, 0] < way(begin, chunk)[-1, 0] - 0.03
    assert there[-1, 1] > begin[0, 1] + 0.05
    assert there[:, 1].max() - begin[0, 1] <= 0.05 * STEPS + 1e-6


def test_there_is_no_way_past_on_the_other_side() -> None:
    begin, chunk = straight((0.0, -0.12, 0.04))  # past the box, well beside it
    plain = keep_out([BOX], MOTION, begin, STILL)(Sample(action=chunk))
    assert float(plain) == 0
    assert float(keep_out([BOX], MOTION, begin, STILL, sides=["-y"])(Sample(action=chunk))) == 0
    assert float(keep_out([BOX], MOTION, begin, STILL, sides=["+y"])(Sample(action=chunk))) > 0.1
    above = begin + torch.tensor([0.0, 0.0, 0.2])
    assert float(keep_out([BOX], MOTION, above, STILL, sides=["+y"])(Sample(action=chunk))) == 0


def test_each_row_has_a_box_and_a_side_of_its_own() -> None:
    """Hands that come along either axis, either way, at boxes of their own."""
    starts = torch.tensor([[0.0, 0.01, 0.04], [0.3, 0.01, 0.04], [0.15, -0.15, 0.04], [0.0, 0.01, 0.04]])
    ahead = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0, 1.0, 0, 0], [1.0, 0, 0, 0]])
    chunk = ahead[:, None].repeat(1, STEPS, 1)
    boxes = [BOX, BOX, BOX, Box(low=(5, 5, 5), high=(6, 6, 6))]
    sides: list[Side] = ["-y", "+y", "-x", "+z"]
    still = torch.zeros(4, 3)
    together = keep_out(boxes, MOTION, starts, still, sides=sides)(Sample(action=chunk))
    for row in range(4):
        one = keep_out([boxes[row]], MOTION, starts[row : row + 1], STILL, sides=[sides[row]])
        torch.testing.assert_close(one(Sample(action=chunk[row : row + 1])), together[row : row + 1])
    assert (together[:3] > 0.05).all()
    assert together[3] == 0


def dreamer() -> tuple[WamPolicy, LinearMotion, Observation]:
    model = make_model(state_dim=7, action_dim=4)
    model.action_space = ActionSpace(
        names=("x", "y", "z", "gripper"), units=("m",) * 4, low=(-1,) * 4, high=(1,) * 4, kind="delta", rate_hz=40
    )
    policy = WamPolicy(model, cameras=("a", "b"), steps=1)
    steps = policy.chunk
    lower = np.concatenate([np.tril(np.ones((steps, steps))), np.zeros((steps, 1))], 1)
    size = model.config.image_size
    images = {name: np.full((size, size, 3), 90, np.uint8) for name in ("a", "b")}
    seen = Observation(images=images, state=np.zeros(7, np.float32), instruction="turn the tap")
    return policy, LinearMotion(weights=0.01 * lower[None].repeat(3, 0)), seen


def dream(policy: WamPolicy, motion: LinearMotion, seen: Observation, hops: int) -> np.ndarray:
    return dreamed_way(policy, motion, seen, place=slice(0, 3), velocity=slice(4, 7), hops=hops)


def test_a_dream_begins_with_the_plan_and_goes_on_from_imagined_frames() -> None:
    policy, motion, seen = dreamer()
    plan = motion.way(torch.zeros(1, 3), torch.zeros(1, 3), torch.from_numpy(policy.act([seen])))[0].numpy()
    policy.reset()
    short, long = dream(policy, motion, seen, 0), dream(policy, motion, seen, 2)
    np.testing.assert_allclose(short, np.concatenate([np.zeros((1, 3)), plan]), atol=1e-6)
    ahead = 8  # the last frame of these models, and all of a chunk
    assert len(long) == 1 + 2 * ahead + policy.chunk
    np.testing.assert_allclose(long[: 1 + ahead], short[: 1 + ahead], atol=1e-6)


def test_a_steered_policy_dreams_unsteered_and_is_steered_again() -> None:
    policy, motion, seen = dreamer()
    plain = dream(policy, motion, seen, 1)

    def aside(sample: Sample) -> Tensor:
        assert sample.action is not None
        return sample.action.sum((1, 2)) + 1e3

    def steer(batch: object) -> Steering:
        return Steering(cost=aside)

    policy.steer = steer
    np.testing.assert_array_equal(dream(policy, motion, seen, 1), plain)
    assert policy.steer is steer


def test_what_cannot_dream_says_so() -> None:
    policy, motion, seen = dreamer()
    with pytest.raises(WamError, match="policy whose model foresees frames"):
        dream(WamPolicy(make_student(), cameras=("a", "b")), motion, seen, 1)
    with pytest.raises(WamError, match="got no state"):
        dream(policy, motion, replace(seen, state=None), 1)
    policy.model.action_space = None
    with pytest.raises(WamError, match="got no rate"):
        dream(policy, motion, seen, 1)
