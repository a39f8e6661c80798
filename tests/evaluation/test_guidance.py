"""Boxes in the way: where they are put, what counts as entering, and that a chunk is tried again from its own state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wam.contracts import Batch, Observation
from wam.control.keep_out import Box, LinearMotion
from wam.evaluation import guidance
from wam.evaluation.guidance import GuidanceEvaluateConfig, again, box_on, drive, enters
from wam.model.wam import Sample
from wam.simulation.environment import make_environment

WAY = np.column_stack([np.linspace(0, 1, 101), np.zeros(101), np.zeros(101)])


def test_a_box_stands_on_the_way_and_leaves_room_at_both_ends() -> None:
    box = box_on(WAY, side=0.1, at=0.4, margin=0.01)
    assert box is not None
    np.testing.assert_allclose((np.add(box.low, box.high) / 2), (0.4, 0, 0), atol=1e-9)
    assert enters(WAY, box)
    assert not box.holds(WAY[[0, -1]]).any()
    assert box_on(WAY, side=0.1, at=0.05, margin=0.01) is None


def test_a_way_that_begins_inside_does_not_enter() -> None:
    box = Box(low=(-0.1, -0.1, -0.1), high=(0.5, 0.1, 0.1))
    assert not enters(WAY, box)
    assert enters(WAY[::-1], box)


class Pushing:
    """Stands in for a policy: the same push at every call."""

    chunk = 8

    def __init__(self, push: tuple[float, float, float, float]) -> None:
        self.push = push

    def reset(self, index: int | None = None) -> None: ...

    def act(self, observations: object) -> np.ndarray:
        return np.tile(np.array(self.push, np.float32), (1, self.chunk, 1))


def test_an_episode_is_the_plans_carried_out_and_each_can_be_tried_again() -> None:
    pytest.importorskip("metaworld")
    config = GuidanceEvaluateConfig(max_steps=20, execute=6)
    environment = make_environment("metaworld/reach-v3", max_steps=20, image_size=8)
    found = drive(environment, Pushing((1, 0, 0, 0)), 10_000, "reach", config)  # type: ignore[arg-type]
    assert [len(plan.way) for plan in found.plans][:3] == [7, 7, 7]
    assert found.plans[1].seen.instruction == "reach"
    np.testing.assert_allclose(found.plans[0].way[-1], found.plans[1].way[0])
    assert found.way[-1, 0] > found.way[0, 0] + 0.05
    same = again(environment, Pushing((1, 0, 0, 0)), found.plans[1], config)  # type: ignore[arg-type]
    np.testing.assert_allclose(same, found.plans[1].way, atol=1e-4)
    other = again(environment, Pushing((-1, 0, 0, 0)), found.plans[1], config)  # type: ignore[arg-type]
    assert other[-1, 0] < same[-1, 0] - 0.03
    environment.close()


@pytest.mark.parametrize(
    ("passing", "side"),
    [("dreamed", "-y"), ("nearest", None), ("+z", "+z"), ("-x", "-x")],
    ids=lambda given: str(given),
)
def test_a_box_is_passed_on_the_side_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, passing: str, side: str | None
) -> None:
    config = GuidanceEvaluateConfig(passing=passing, margin=0.01)  # type: ignore[arg-type]
    box, seen = Box(low=(0.3, -0.1, -0.1), high=(0.5, 0.1, 0.1)), Observation(images={}, state=np.zeros(39, np.float32))
    monkeypatch.setattr(guidance, "dreamed_way", lambda *_, **__: np.zeros((2, 3)))
    monkeypatch.setattr(guidance, "outer_side", lambda *_: "-y")
    found = guidance._side(box, None, None, seen, config)  # type: ignore[arg-type]
    assert found == side
    weights = np.zeros((3, 8, 9))
    weights[:, np.arange(8), np.arange(8)] = 1  # the hand is where the action says
    batch = Batch(images=torch.zeros(2, 1, 1, 8, 8, 3, dtype=torch.uint8), state=torch.zeros(2, 39))
    steering = guidance._steer(box, found, LinearMotion(weights=weights), config)(batch)
    inside = torch.tensor([0.4, -0.02, 0.05, 0.0]).expand(2, 8, 4).clone().requires_grad_()
    cost = steering.cost(Sample(action=inside))
    (push,) = torch.autograd.grad(cost.sum(), inside)
    axis = {"x": 0, "y": 1, "z": 2}[side[1]] if side else 2  # the nearest face is the upper one
    assert (
        push[..., axis] * (-1 if side in ("-x", "-y") else 1) < 0
    ).all()  # against the cost's gradient, out on that side
    others = [i for i in range(3) if i != axis]
    assert not push[..., others].any()
