"""Constraints between points: what each says is missing, how they combine, and that a chunk comes to keep them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wam.contracts import WamError
from wam.control.keypoints import above, apart, at_end, both, either, near, on_path, over, tracks
from wam.control.ways import displaced
from wam.model.steering import Steering, descend
from wam.model.wam import Sample

STEPS = 10


def points(*hand: tuple[float, float, float], **others: tuple[float, float, float]) -> dict[str, Tensor]:
    way = torch.tensor([hand])
    return {"hand": way, **{name: torch.tensor(place).expand_as(way) for name, place in others.items()}}


def test_each_constraint_says_how_many_metres_are_missing() -> None:
    there = points((0.0, 0.0, 0.3), (0.3, 0.4, 0.0), mug=(0.0, 0.0, 0.1))
    for constraint, missing in (
        (above("hand", "mug", by=0.05), [-0.15, 0.15]),
        (over("hand", "mug", within=0.1), [-0.1, 0.4]),
        (near("hand", "mug", within=0.2), [0.0, 0.26**0.5 - 0.2]),
        (apart("hand", "mug", by=0.3), [0.1, 0.3 - 0.26**0.5]),
    ):
        torch.testing.assert_close(constraint(there)[0], torch.tensor(missing), atol=1e-6, rtol=0)


def test_either_asks_for_the_nearest_and_both_for_the_farthest() -> None:
    there = points((0.1, 0.0, 0.0), mug=(0.0, 0.0, 0.1))
    high, middle = above("hand", "mug"), over("hand", "mug", within=0.05)
    assert either(high, middle)(there).item() == pytest.approx(0.05)
    assert both(high, middle)(there).item() == pytest.approx(0.1)


def test_held_points_go_with_the_hand_and_fixed_ones_stay() -> None:
    follow = tracks(displaced(torch.zeros(2, 3), scale=1.0), fixed={"mug": (1, 2, 3)}, held={"tip": (0, 0, -0.1)})
    found = follow(torch.ones(2, 3, 3))
    assert (found["mug"] == torch.tensor([1.0, 2, 3])).all()
    torch.testing.assert_close(found["hand"] - found["tip"], torch.tensor([0, 0, 0.1]).expand(2, 3, 3))
    each = tracks(displaced(torch.zeros(2, 3), scale=1.0), fixed={"mug": torch.eye(3)[:2]})(torch.ones(2, 3, 3))
    assert (each["mug"][1] == torch.tensor([0.0, 1, 0])).all()


def test_names_that_are_not_there_or_there_twice_are_refused() -> None:
    way = displaced(torch.zeros(1, 3), scale=1.0)
    with pytest.raises(WamError, match="names that differ"):
        tracks(way, fixed={"hand": (0, 0, 0)})
    with pytest.raises(WamError, match="'cup'"):
        on_path(above("hand", "cup"), tracks(way))(Sample(action=torch.zeros(1, 2, 3)))
    with pytest.raises(WamError, match="each of 1 rows"):
        tracks(way, fixed={"cup": (0.0, 1.0)})(torch.zeros(1, 2, 3))
    with pytest.raises(WamError, match="want the action"):
        at_end(above("hand", "cup"), tracks(way))(Sample())


def test_a_hand_that_comes_from_the_side_is_led_above_before_it_comes_down() -> None:
    """It heads straight for the handle, 20 cm away; it may come down only over it."""
    handle = (0.2, 0.0, 0.05)
    start = torch.tensor([[0.0, 0.0, 0.15]])
    way = displaced(start, scale=0.05)
    chunk = ((torch.tensor([handle]) - start) / 0.05 / STEPS)[:, None].repeat(1, STEPS, 1)
    follow = tracks(way, fixed={"handle": handle})
    from_above = on_path(either(over("hand", "handle", within=0.03), above("hand", "handle", by=0.08)), follow)
    reach = at_end(near("hand", "handle", within=0.02), follow)
    assert from_above(Sample(action=chunk)) > 0.05
    assert reach(Sample(action=chunk)) == 0

    def cost(sample: Sample) -> Tensor:
        return from_above(sample) + reach(sample)

    found = descend(chunk, lambda action: Sample(action=action), Steering(cost=cost, steps=200, reach=0.03))
    assert from_above(Sample(action=found)) < 0.005
    assert reach(Sample(action=found)) < 0.02
    assert found.abs().max() < 2.5  # of commands whose straight way takes 0.4 a step


def test_a_kept_constraint_moves_nothing() -> None:
    chunk = torch.zeros(1, STEPS, 3)
    follow = tracks(displaced(torch.tensor([[0.0, 0.0, 0.5]]), scale=0.05), fixed={"handle": (0, 0, 0)})
    cost = on_path(above("hand", "handle", by=0.1), follow)
    assert torch.equal(descend(chunk, lambda action: Sample(action=action), Steering(cost=cost)), chunk)
