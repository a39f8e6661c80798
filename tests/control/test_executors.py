"""Which action is carried out at which tick, for every executor, latency and size of chunk, without threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.control_fakes import Clock, Continuing, Counting, seen
from wam.contracts import WamError
from wam.control.executors import EXECUTORS, Executor, Step, make_executor
from wam.control.planner import SimulatedPlanner

PERIOD = 0.05


def run(
    name: str,
    *,
    delay: int | Callable[[int], int] = 0,
    execute: int = 4,
    ticks: int = 30,
    policy: Counting | None = None,
) -> tuple[list[Step], list[int], Executor]:
    """Steps by tick, the ticks at which was looked, and the executor."""
    clock = Clock()
    seconds = (lambda n: PERIOD * delay(n)) if callable(delay) else PERIOD * delay
    planner = SimulatedPlanner(policy or Continuing(), period=PERIOD, clock=clock, delay=seconds)
    executor, steps, looks = make_executor(name, planner, execute=execute), [], []
    for tick in range(ticks):

        def observe(tick: int = tick) -> object:
            looks.append(tick)
            return seen(tick)

        steps.append(executor.tick(observe))  # type: ignore[arg-type]
        clock.now += PERIOD
    return steps, looks, executor


def meant_for(steps: list[Step]) -> list[int | None]:
    """The tick for which each step's action was planned."""
    return [None if step.action is None else round(1000 * step.action[1]) for step in steps]


def seen_at(steps: list[Step]) -> list[int | None]:
    """The tick of the observation behind each step's action."""
    return [None if step.action is None else round(1000 * step.action[0]) for step in steps]


@pytest.mark.parametrize("name", ["synchronous", "naive"])
def test_without_latency_all_look_every_few_actions(name: str) -> None:
    steps, looks, _ = run(name, ticks=12)
    assert looks == [0, 4, 8]
    assert meant_for(steps) == list(range(12))
    assert seen_at(steps) == [0] * 4 + [4] * 4 + [8] * 4
    assert [step.sequence for step in steps] == [0] * 4 + [1] * 4 + [2] * 4
    assert [step.seen_at for step in steps] == pytest.approx([0.0] * 4 + [0.2] * 4 + [0.4] * 4)


def test_the_synchronous_robot_stands_still_while_it_waits() -> None:
    steps, looks, _ = run("synchronous", delay=3, ticks=14)
    assert looks == [0, 7]
    assert seen_at(steps) == [None] * 3 + [0] * 4 + [None] * 3 + [7] * 4


def test_the_naive_robot_goes_on_and_over_to_the_present_tick_of_the_new_plan() -> None:
    steps, looks, _ = run("naive", delay=3, ticks=14)
    assert looks == [0, 7, 11]
    assert meant_for(steps) == [None] * 3 + list(range(7)) + list(range(10, 14))
    assert seen_at(steps) == [None] * 3 + [0] * 7 + [7] * 4


def test_the_first_plan_is_carried_out_from_its_first_action_since_the_robot_stood_still() -> None:
    for name in ("naive", "rtc-guided", "ensemble"):
        steps, _, _ = run(name, delay=5, ticks=8)
        assert meant_for(steps) == [None] * 5 + [0, 1, 2]


@given(delay=st.integers(0, 12), execute=st.integers(1, 8), name=st.sampled_from(["naive", "rtc-guided", "ensemble"]))
def test_no_tick_is_without_an_action_if_a_chunk_bridges_the_latency(delay: int, execute: int, name: str) -> None:
    steps, _, _ = run(name, delay=delay, execute=execute, ticks=40)
    if 2 * delay <= 8:
        assert all(step.action is not None for step in steps[delay:])
    if delay >= 8:  # as the synchronous robot: it stands still between whole chunks
        assert [step.action is None for step in steps[: 2 * delay + 8]] == [True] * delay + [False] * 8 + [True] * delay


def test_a_chunk_too_short_for_the_latency_leaves_gaps_that_do_not_count() -> None:
    steps, looks, _ = run("naive", delay=6, ticks=26)
    assert looks == [0, 12, 22]
    assert meant_for(steps)[6:26] == [*range(8), *[None] * 4, *range(14, 20), *[None] * 2]


def test_a_plan_that_comes_late_leaves_the_robot_idle_and_makes_the_next_start_earlier() -> None:
    steps, looks, executor = run("naive", delay=lambda n: 4 if n == 1 else 1, execute=6, ticks=24)
    assert looks[:3] == [0, 7, 9 + 4]
    assert meant_for(steps)[1:14] == [*range(8), None, None, 9, 10, 11]
    assert None not in meant_for(steps)[14:]
    assert executor.planner.delay == 4


def test_real_time_chunking_hands_over_what_is_left_with_the_latency_it_expects() -> None:
    policy = Continuing()
    run("rtc-guided", delay=2, execute=3, ticks=12, policy=policy)
    first, second = policy.left[:2]
    assert first is not None
    assert second is not None
    assert (first.delay, first.method) == (2, "guided")
    np.testing.assert_allclose(1000 * first.actions[:, 1], range(3, 8))  # from tick 3 on, of the first plan
    np.testing.assert_allclose(1000 * second.actions[:, 1], range(8, 13))


def test_a_broken_plan_is_not_continued() -> None:
    class Broken(Continuing):
        def act(self, observations: object) -> np.ndarray:
            return np.full((1, 8, 4), np.nan)

    policy = Broken()
    run("rtc-guided", policy=policy, ticks=10)
    assert policy.left == []


def test_blended_plans_have_no_seam() -> None:
    class Jumping(Counting):
        def act(self, observations: object) -> np.ndarray:
            self.plans += 1
            return np.full((1, 8, 4), float(self.plans % 2))

    def largest(name: str) -> float:
        steps, _, _ = run(name, delay=1, execute=3, ticks=30, policy=Jumping())
        return float(np.abs(np.diff([step.action[0] for step in steps if step.action is not None])).max())

    assert largest("naive") == 1.0
    assert largest("rtc-blend") < 0.8


def test_ensembling_weighs_the_oldest_most() -> None:
    steps, looks, _ = run("ensemble", execute=1, ticks=10, policy=Counting())
    assert looks == list(range(10))
    weights = np.exp(-0.01 * np.arange(8))
    assert steps[9].action is not None
    assert 1000 * steps[9].action[2] == pytest.approx((weights * np.arange(2, 10)).sum() / weights.sum())
    assert meant_for(steps) == list(range(10))
    assert steps[9].sequence == 9


def test_a_new_episode_forgets_the_plan_under_way() -> None:
    policy = Continuing()
    _, _, executor = run("naive", delay=5, ticks=3, policy=policy)
    executor.reset()
    assert not executor.planner.busy
    assert policy.resets == 2
    assert executor.tick(lambda: seen(0)).action is None


def test_names_and_numbers_that_cannot_be_meant_are_refused() -> None:
    assert [run(name, ticks=1)[0][0].action is not None for name in EXECUTORS] == [True] * len(EXECUTORS)
    for name in ("rtc", "rtc-trained", "later"):
        with pytest.raises(WamError, match="executor among"):
            run(name)
    with pytest.raises(WamError, match="'blend'"):
        run("rtc-guided", policy=Counting())
    with pytest.raises(WamError, match="chunk's 8"):
        run("naive", execute=9)
