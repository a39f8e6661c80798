"""The loop in real time: threads that wait for each other rather than for the clock, and time that tests move."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.control.control_fakes import Clock, Continuing, Counting, seen, space
from wam.contracts import Observation, WamError
from wam.control.executors import make_executor
from wam.control.guard import SafetyGuard
from wam.control.interpolation import Interpolator
from wam.control.limits import GuardLimits
from wam.control.planner import SimulatedPlanner, ThreadPlanner
from wam.control.realtime import GuardedRobot, LoopReport, Watchdog, drive

PATIENCE = 60.0  # seconds until a test of threads gives up; none waits for it


class Noting:
    """A robot that notes what it is sent, and when."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.sent, self.times, self.looks = clock, [], [], 0
        self.hold_came = threading.Event()

    def observe(self) -> Observation:
        self.looks += 1
        return seen(len(self.sent))

    def position(self) -> None:
        return None

    def send(self, command: np.ndarray) -> None:
        self.sent.append(command)
        self.times.append(self.clock())
        if not command.any():
            self.hold_came.set()


class Waiting(Counting):
    """A policy that computes until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.begun = threading.Event(), threading.Event()

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return super().act(observations)


def in_simulated_time(
    policy: Any, *, ticks: int = 20, rate_hz: float = 20, interpolator: Interpolator | None = None, kind: str = "delta"
) -> tuple[Noting, SafetyGuard, LoopReport]:
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    robot = Noting(clock)
    commands = rate_hz * (interpolator.parts if interpolator else 1)
    guard = SafetyGuard(space(kind), GuardLimits(max_age=1.0), rate_hz=commands, start=np.zeros(4), clock=clock)
    planner = SimulatedPlanner(policy, period=1 / rate_hz, clock=clock, delay=0.1)
    executor = make_executor("naive", planner, execute=4)
    report = drive(
        executor,
        GuardedRobot(robot, guard),
        rate_hz=rate_hz,
        ticks=ticks,
        interpolator=interpolator,
        clock=clock,
        sleep=sleep,
    )
    return robot, guard, report


def test_every_tick_sends_one_command_on_time() -> None:
    robot, guard, report = in_simulated_time(Counting())
    np.testing.assert_allclose(robot.times, 0.05 * np.arange(20), atol=1e-9)
    assert (report.ticks, report.late, report.held, guard.commands) == (20, 0, 2, 20)  # nothing came for two ticks
    assert report.chunk.max == pytest.approx(0.1)
    assert robot.looks == 5


def test_interpolated_commands_are_evenly_spaced_and_held_where_there_is_nothing() -> None:
    robot, guard, report = in_simulated_time(Counting(), interpolator=Interpolator(space(), rate_hz=100), ticks=4)
    np.testing.assert_allclose(robot.times, 0.01 * np.arange(20), atol=1e-9)
    assert report.held == guard.counts["underrun"] == 10
    moved = 1000 * np.sum(robot.sent, axis=0)
    assert moved[1] == pytest.approx(0 + 1)  # the first plan, from its beginning


def test_a_policy_that_says_nonsense_is_held_at_every_part() -> None:
    class Nonsense(Counting):
        def act(self, observations: Sequence[Observation]) -> np.ndarray:
            return np.zeros((1, 8, 3))

    _, guard, report = in_simulated_time(Nonsense(), interpolator=Interpolator(space(), rate_hz=40), ticks=5)
    assert report.held == 10
    assert guard.counts == {"underrun": 4, "shape": 6}


def test_a_policy_that_fails_leaves_a_robot_that_stands_still() -> None:
    class Failing(Counting):
        def act(self, observations: Sequence[Observation]) -> np.ndarray:
            if self.plans:
                raise MemoryError
            return super().act(observations)

    with pytest.raises(MemoryError):
        in_simulated_time(Failing())
    clock = Clock()
    robot = Noting(clock)
    guard = SafetyGuard(space(), clock=clock)
    planner = SimulatedPlanner(Failing(), period=0.05, clock=clock)
    with pytest.raises(MemoryError):
        drive(
            make_executor("naive", planner, execute=4),
            GuardedRobot(robot, guard),
            rate_hz=20,
            clock=clock,
            sleep=lambda s: setattr(clock, "now", clock.now + s),
        )
    assert guard.stopped == "the control loop ended: MemoryError"
    assert not robot.sent[-1].any()


def test_a_late_tick_is_not_made_up_for() -> None:
    clock, delays = Clock(), [0.0, 0.13, 0.0, 0.0]

    class Slow(Noting):
        def position(self) -> None:
            clock.now += delays.pop(0)

    robot = Slow(clock)
    guard = SafetyGuard(space(), clock=clock)
    planner = SimulatedPlanner(Counting(), period=0.05, clock=clock)
    report = drive(
        make_executor("naive", planner, execute=4),
        GuardedRobot(robot, guard),
        rate_hz=20,
        ticks=4,
        clock=clock,
        sleep=lambda s: setattr(clock, "now", clock.now + s),
    )
    assert report.late == 1
    np.testing.assert_allclose(robot.times, [0, 0.18, 0.18, 0.23])


def test_a_guard_for_another_rate_is_refused() -> None:
    guarded = GuardedRobot(Noting(Clock()), SafetyGuard(space(rate_hz=20)))
    planner = SimulatedPlanner(Counting(), period=0.05, clock=Clock())
    with pytest.raises(WamError, match="100 commands a second"):
        drive(
            make_executor("naive", planner, execute=4),
            guarded,
            rate_hz=20,
            interpolator=Interpolator(space(), rate_hz=100),
        )


def test_a_thread_computes_while_the_robot_goes_on() -> None:
    clock, policy = Clock(), Waiting()
    policy.go.set()
    with ThreadPlanner(policy, period=0.05, clock=clock) as planner:
        executor = make_executor("naive", planner, execute=4)
        assert executor.tick(lambda: seen(0)).sequence in (None, 0)
        planner.wait(PATIENCE)
        policy.go.clear()
        policy.begun.clear()
        steps = [executor.tick(lambda tick=tick: seen(tick)) for tick in range(1, 7)]  # type: ignore[misc]
        assert policy.begun.wait(PATIENCE)  # the second plan is under way, and stays so
        assert [step.sequence for step in steps] == [0] * 6
        assert planner.busy
        clock.now = 0.35
        policy.go.set()
        planner.wait(PATIENCE)
        step = executor.tick(lambda: seen(7))
        assert step.sequence == 1
        assert step.action is not None
        assert round(1000 * step.action[1]) == 7
        assert planner.delay == 7  # ticks, from the clock


def test_what_the_policy_raises_in_its_thread_is_raised_in_the_loop() -> None:
    class Failing(Counting):
        def act(self, observations: Sequence[Observation]) -> np.ndarray:
            raise ValueError("no such camera")

    with ThreadPlanner(Failing(), period=0.05, clock=Clock()) as planner:
        planner.start(seen(0), tick=0)
        with pytest.raises(ValueError, match="no such camera"):
            planner.wait(PATIENCE)
        with pytest.raises(ValueError, match="no such camera"):
            planner.collect(1)
        assert not planner.busy


def test_a_new_episode_waits_for_the_thread_and_drops_its_plan() -> None:
    policy = Waiting()
    with ThreadPlanner(policy, period=0.05, clock=Clock()) as planner:
        planner.start(seen(0), tick=0)
        with pytest.raises(WamError, match="one plan at a time"):
            planner.start(seen(0), tick=0)
        policy.go.set()
        planner.reset()
        assert planner.collect(100) is None
        assert policy.resets == 1


def test_the_watchdog_holds_a_robot_whose_loop_hangs() -> None:
    clock = Clock()
    robot = Noting(clock)
    guarded = GuardedRobot(robot, SafetyGuard(space(), GuardLimits(watchdog=0.02), clock=clock))
    with Watchdog(guarded):
        guarded.send(np.array([0.5, 0, 0, 0]))
        assert not robot.hold_came.wait(0.1)  # the clock stands still: no silence
        clock.now = 1.0
        assert robot.hold_came.wait(PATIENCE)
    assert guarded.guard.counts == {"watchdog": 1}
    with pytest.raises(WamError, match="a guard with a watchdog"):
        Watchdog(GuardedRobot(robot, SafetyGuard(space())))


def test_the_documented_example_runs() -> None:
    import time

    page = Path("docs/control.md").read_text()
    example = page.split("```python\n")[1].split("```")[0].replace("ticks=400", "ticks=8")
    robot = Noting(time.monotonic)
    exec(compile(example, "control.md", "exec"), {"robot": robot, "space": space(rate_hz=40), "policy": Continuing()})
    assert len(robot.sent) >= 8


def test_the_loop_runs_in_real_time_with_a_thread() -> None:
    """Nothing is asked of the clock but that it goes on."""
    import time

    robot = Noting(time.monotonic)
    guard = SafetyGuard(space(rate_hz=100), clock=time.monotonic)
    with ThreadPlanner(Counting(), period=0.01, clock=time.monotonic) as planner:
        report = drive(
            make_executor("rtc-blend", planner, execute=4), GuardedRobot(robot, guard), rate_hz=100, ticks=30
        )
    assert report.ticks == len(robot.sent) == 30
    assert robot.times[-1] - robot.times[0] >= 0.2
    assert report.tick.n == 30
