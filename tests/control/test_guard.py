"""Whatever comes, what leaves the guard may be sent: each fault has a test, and the guard says which it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.control.control_fakes import Clock, space
from wam.contracts import WamError
from wam.control.guard import SafetyGuard
from wam.control.limits import GuardLimits, Workspace
from wam.control.stages import REASONS
from wam.settings import load_settings

GOOD = np.array([0.1, -0.2, 0.3, 0.5])
START = np.array([0.2, 0.2, 0.2, 1.0])
ROOM = Workspace(low=(-0.5, -0.5, 0.0), high=(0.5, 0.5, 0.5), metres=0.05)


def guard(kind: str = "delta", clock: Clock | None = None, **limits: Any) -> SafetyGuard:
    options = {name: limits.pop(name) for name in ("veto", "button", "on_stop", "rate_hz") if name in limits}
    return SafetyGuard(
        space(kind), GuardLimits(**limits), start=None if kind == "delta" else START, clock=clock or Clock(), **options
    )


def test_its_questions_are_asked_in_this_order() -> None:
    asked = "finite shape position velocity acceleration workspace collision age underrun watchdog estop"
    assert " ".join(REASONS) == asked


@pytest.mark.parametrize("kind", ["delta", "absolute"])
def test_a_good_command_passes_untouched(kind: str) -> None:
    one = guard(kind)
    verdict = one.check(GOOD)
    np.testing.assert_array_equal(verdict.action, GOOD)
    assert (verdict.reasons, verdict.held, one.commands, sum(one.counts.values())) == ((), False, 1, 0)


BAD: dict[str, list[Any]] = {
    "finite": [np.array([0.1, np.nan, 0, 0]), [0.1, float("inf"), 0, 0], np.array(-np.inf)],
    "shape": [GOOD[:3], GOOD[None], 0.1, [], GOOD.astype(object), GOOD.astype(complex), GOOD > 0, "open", [[1], [2, 3]], {}],
    "position": [np.array([3.0, 0, 0, 0]), np.array([0, 0, 0, -1e300])],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "action"), [(reason, action) for reason, found in BAD.items() for action in found])
def test_what_is_no_action_holds_and_is_counted(reason: str, action: Any) -> None:
    one = guard()
    one.check(GOOD)
    verdict = one.check(action)
    np.testing.assert_array_equal(verdict.action, [0, 0, 0, GOOD[3]])
    assert (verdict.reasons, verdict.held, one.counts) == ((reason,), True, {reason: 1})


def test_a_hold_of_displacements_stops_and_keeps_the_gripper_one_of_places_stays() -> None:
    moving, placed = guard("delta"), guard("absolute")
    np.testing.assert_array_equal(moving.hold(), np.zeros(4))
    np.testing.assert_array_equal(placed.hold(), START)
    for one in (moving, placed):
        one.check(GOOD)
    np.testing.assert_array_equal(moving.check(None).action, [0, 0, 0, 0.5])
    np.testing.assert_array_equal(placed.check(None).action, GOOD)


def test_barely_outside_is_cut_to_the_limit_and_far_outside_is_a_fault() -> None:
    one = guard(tolerance=0.05)
    cut = one.check(np.array([1.09, 0, 0, 0]))
    np.testing.assert_array_equal(cut.action, [1, 0, 0, 0])
    assert (cut.reasons, cut.held) == (("position",), False)
    assert one.check(np.array([1.11, 0, 0, 0])).held


def test_own_limits_tighten_the_action_spaces() -> None:
    one = guard(high={"x": 0.5})
    np.testing.assert_allclose(one.check(np.array([0.55, 1, 0, 0])).action, [0.5, 1, 0, 0])


@pytest.mark.parametrize("kind", ["delta", "absolute"])
def test_a_step_is_cut_to_the_velocity(kind: str) -> None:
    clock = Clock()
    one = guard(kind, clock, velocity={"x": 4.0})  # at 20 Hz: 0.2 an action
    before = one.last.copy()
    verdict = one.check(np.add(before, [0.9 if kind == "delta" else 0.7, 0.1, 0, 0]))
    np.testing.assert_allclose(verdict.action, np.add(before, [0.2, 0.1, 0, 0]))
    assert verdict.reasons == ("velocity",)


def test_speeding_up_takes_time_and_stopping_none() -> None:
    clock = Clock()
    one = guard("delta", clock, acceleration={"x": 40.0})  # a velocity of 2 more each action, 0.1 of displacement
    went = []
    for x in (0.5, 0.5, 0.5, 0.1, 0.0, -0.5):
        went.append(one.check(np.array([x, 0, 0, 0])).action[0])
        clock.now += 0.05
    np.testing.assert_allclose(went, [0.1, 0.2, 0.3, 0.1, 0.0, -0.1])


def test_a_command_that_comes_too_soon_has_less_time_to_move() -> None:
    clock = Clock()
    one = guard("delta", clock, velocity={"x": 4.0}, early=0.2)
    push = np.array([0.2, 0, 0, 0])
    assert one.check(push).reasons == ()
    clock.now += 0.041  # early, but barely
    assert one.check(push).reasons == ()
    clock.now += 0.01
    np.testing.assert_allclose(one.check(push).action[0], 0.04)
    np.testing.assert_allclose(one.check(push).action[0], 0.0)  # at the same instant
    clock.now -= 1.0
    np.testing.assert_allclose(one.check(push).action[0], 0.0)  # and before it


def test_a_late_command_may_not_catch_up() -> None:
    clock = Clock()
    one = guard("absolute", clock, velocity={"x": 2.0})
    one.check(START)
    clock.now += 10
    np.testing.assert_allclose(one.check(np.add(START, [0.5, 0, 0, 0])).action[0], START[0] + 0.1)


def test_the_hand_may_not_leave_its_room_and_may_come_back() -> None:
    one = guard(workspace=ROOM)
    wall = np.array([0.48, 0, 0.2])
    out, back = np.array([1.0, 0, 0, 0.5]), np.array([-1.0, 0, 0, 0.5])
    assert one.check(out, position=wall - [0.1, 0, 0]).reasons == ()
    assert one.check(out, position=wall).reasons == ("workspace",)
    outside = np.array([0.7, 0, 0.2])
    assert one.check(back, position=outside).reasons == ()
    assert one.check(np.array([-1.0, 0, -1.0, 0.5]), position=np.array([0.7, 0, 0.02])).held  # through the floor
    assert one.check(np.array([0, 0.1, 0, 0.5]), position=outside).held  # along the wall, outside


@pytest.mark.parametrize("place", [None, np.array([np.nan, 0, 0]), np.zeros(2), "here"])
def test_a_hand_whose_place_is_not_known_is_not_moved(place: Any) -> None:
    assert guard(workspace=ROOM).check(GOOD, position=place).reasons == ("workspace",)


def test_absolute_targets_outside_the_room_hold() -> None:
    one = guard("absolute", workspace=Workspace(low=(0, 0, 0), high=(0.5, 0.5, 0.5)))
    assert one.check(np.array([0.4, 0.4, 0.4, 0])).reasons == ()
    assert one.check(np.array([0.6, 0.4, 0.4, 0])).reasons == ("workspace",)


def test_a_veto_holds_and_so_does_one_that_fails() -> None:
    moves = []

    def veto(move: Any) -> bool:
        moves.append(move)
        if move.end[0] > 0.02:
            raise RuntimeError("no map")
        return move.end[1] > 0.0

    one = guard(workspace=ROOM, veto=veto)
    at = {"position": np.array([0, 0, 0.1])}
    assert one.check(np.array([0.1, -0.1, 0, 0]), **at).reasons == ()
    assert one.check(np.array([0.1, 0.1, 0, 0]), **at).reasons == ("collision",)
    assert one.check(np.array([0.9, -0.1, 0, 0]), **at).reasons == ("collision",)
    np.testing.assert_allclose(moves[0].end - moves[0].start, [0.005, -0.005, 0])


def test_a_stale_observation_holds_the_robot() -> None:
    clock = Clock()
    clock.now = 10.0
    one = guard("delta", clock, max_age=0.5)
    assert one.check(GOOD, seen_at=9.5).reasons == ()
    assert one.check(GOOD, seen_at=9.49).reasons == ("age",)
    assert one.check(GOOD, seen_at=10.01).reasons == ("age",)  # from the future: another clock
    assert one.check(GOOD).reasons == ("age",)  # nobody says


def test_an_observation_older_than_one_before_holds() -> None:
    one = guard()
    assert one.check(GOOD, sequence=3, seen_at=1.0).reasons == ()
    assert one.check(GOOD, sequence=3, seen_at=1.0).reasons == ()  # further actions of the same chunk
    assert one.check(GOOD, sequence=2, seen_at=1.0).reasons == ("age",)
    assert one.check(GOOD, sequence=4, seen_at=0.9).reasons == ("age",)
    assert one.check(GOOD, sequence=4, seen_at=1.1).reasons == ()


def test_nothing_to_do_is_an_underrun() -> None:
    assert guard().check(None).reasons == ("underrun",)


def test_the_watchdog_holds_once_after_a_silence() -> None:
    clock = Clock()
    one = guard("delta", clock, watchdog=0.2)
    one.check(GOOD)
    assert one.poll() is None
    clock.now += 0.3
    assert one.check(GOOD).reasons == ("watchdog",)
    clock.now += 0.05
    assert one.check(GOOD).reasons == ()
    assert one.counts["watchdog"] == 1


def test_a_timer_gets_the_hold_while_commands_are_silent_and_it_counts_once() -> None:
    clock = Clock()
    one = guard("delta", clock, watchdog=0.2)
    assert one.poll() is None  # nothing was sent yet, nothing moves
    one.check(GOOD)
    clock.now += 0.3
    for _ in range(3):
        np.testing.assert_array_equal(one.poll(), [0, 0, 0, 0.5])
    assert one.check(GOOD).held
    assert one.counts["watchdog"] == 1


def test_an_e_stop_is_latched_until_it_is_released() -> None:
    said: list[str] = []
    one = guard(on_stop=said.append)
    one.stop("a person in the cell")
    one.stop("again")
    assert [one.check(GOOD).reasons for _ in range(3)] == [("estop",)] * 3
    one.reset()
    assert one.check(GOOD).held  # a new episode lifts nothing
    assert said == ["a person in the cell"]
    one.release()
    assert one.check(GOOD).reasons == ()


def test_a_button_stops_even_when_the_command_is_broken_and_one_that_cannot_be_read_is_pressed() -> None:
    pressed = [True, False]
    one = guard(button=lambda: pressed.pop(0))
    assert one.check(np.full(4, np.nan)).reasons == ("finite",)
    assert one.check(GOOD).reasons == ("estop",)

    def broken() -> bool:
        raise OSError("unplugged")

    assert guard(button=broken).check(GOOD).reasons == ("estop",)


def test_too_many_holds_in_a_row_stop_the_robot() -> None:
    one = guard(latch_after=3)
    one.check(None), one.check(None)
    one.check(GOOD)
    one.check(None), one.check(None)
    assert not one.stopped
    one.check(None)
    assert "3 commands held" in one.stopped
    assert one.check(GOOD).reasons == ("estop",)


def test_a_chunk_is_vetted_without_a_trace() -> None:
    one = guard(workspace=ROOM, velocity={"x": 10.0})
    chunk = np.tile(np.array([0.5, 0, 0, 0.3]), (12, 1))
    chunk[1] = np.nan
    found = one.vet(chunk, position=np.array([0.3, 0, 0.2]))
    assert found.safe == 1
    assert found.reasons[1] == ("finite",)
    reached = 0.3 + 0.05 * found.actions[:, 0].cumsum()
    assert reached.max() <= 0.5
    assert found.reasons[-1] == ("workspace",)
    np.testing.assert_array_equal(found.actions[-1], [0, 0, 0, 0.3])
    assert one.commands == 0
    assert not one.counts
    assert one.vet("nonsense").reasons == (("shape",),)
    one.stop()
    assert one.vet(chunk[:1], position=np.zeros(3) + 0.1).reasons == (("estop",),)


def test_commands_at_a_higher_rate_share_the_displacement() -> None:
    one = guard(rate_hz=100)
    assert one.check(np.array([0.2, 0, 0, 1.0])).reasons == ()
    assert one.check(np.array([0.25, 0, 0, 1.0])).held


LIMITS = GuardLimits(velocity={"x": 8.0, "gripper": 5.0}, acceleration={"x": 100.0, "y": 50.0}, workspace=ROOM)
numbers = st.floats(allow_nan=True, allow_infinity=True, width=64) | st.floats(-1.2, 1.2)


@given(
    kind=st.sampled_from(["delta", "absolute"]),
    commands=st.lists(
        st.none() | arrays.arrays(np.float64, st.sampled_from([(4,), (3,), (4, 1)]), elements=numbers), max_size=12
    ),
    waits=st.lists(st.floats(0, 0.2), min_size=12, max_size=12),
)
def test_whatever_comes_what_leaves_is_finite_inside_the_limits_and_no_faster(
    kind: str, commands: list[Any], waits: list[float]
) -> None:
    clock = Clock()
    one = SafetyGuard(space(kind), LIMITS, start=START, clock=clock)
    before, hand = one.last.copy(), np.array([0.2, 0.2, 0.2])
    for command, wait in zip(commands, waits, strict=False):
        clock.now += wait
        verdict = one.check(command, position=hand)
        assert verdict.action.shape == (4,)
        assert np.isfinite(verdict.action).all()
        assert (np.abs(verdict.action) <= 1 + 1e-12).all()
        assert verdict.held == (verdict.held and bool(verdict.reasons))
        moved = verdict.action[0] - (0 if kind == "delta" else before[0])
        assert abs(moved) <= 8.0 * 0.05 + 1e-9
        assert abs(verdict.action[3] - before[3]) <= 5.0 * 0.05 + 1e-9
        before = verdict.action


def test_limits_are_read_from_yaml() -> None:
    limits = load_settings(GuardLimits, Path("configs/control/guard.yaml"), ["max_age=0.1"])
    assert limits.workspace is not None
    assert (limits.max_age, limits.velocity["x"], limits.workspace.metres) == (0.1, 40, 0.02)
    SafetyGuard(space(rate_hz=40), limits)


def test_limits_that_cannot_be_meant_are_refused() -> None:
    for limits, word in (
        ({"velocity": {"w": 1.0}}, "dimensions among"),
        ({"velocity": {"x": 0.0}}, "above 0"),
        ({"max_age": -1.0}, "0 or more"),
        ({"high": {"x": 2.0}}, "inside the action space's"),
        ({"low": {"x": 0.5}}, "displacements that may be 0"),
    ):
        with pytest.raises(WamError, match=word):
            guard(**limits)
    with pytest.raises(WamError, match="low corner"):
        Workspace(low=(0, 0, 0), high=(1, 0, 1))
    with pytest.raises(WamError, match="relative"):
        guard("relative")
    with pytest.raises(WamError, match="where the robot stands"):
        SafetyGuard(space("absolute"))
    with pytest.raises(WamError, match="finite start"):
        SafetyGuard(space("absolute"), start=np.full(4, np.nan))
