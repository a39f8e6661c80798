"""The control loop in real time: an executor, the guard, a robot, and a watchdog that holds the robot when the loop hangs.

with ThreadPlanner(policy, period=1 / space.rate_hz, clock=time.monotonic) as planner:
    executor = make_executor("rtc-guided", planner, execute=4)
    report = drive(executor, GuardedRobot(robot, guard), rate_hz=space.rate_hz, ticks=400)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wam.contracts import Observation, expected
from wam.control.executors import Executor
from wam.control.guard import SafetyGuard, Verdict
from wam.control.interpolation import Interpolator
from wam.control.latency import Latency, LatencyTracker
from wam.control.stages import as_numbers


class Robot(Protocol):
    """What the loop asks of a robot. `send` may be called from the watchdog's thread too, but never by two at a time."""

    def observe(self) -> Observation: ...

    def position(self) -> np.ndarray | None:
        """(3,) of the hand now, metres in the world, or None where nobody asks for it."""
        ...

    def send(self, command: np.ndarray) -> None: ...


class GuardedRobot:
    """A robot that is reached through its guard alone, one command at a time: what is judged is sent before anything else
    is judged, so a command from before a silence never follows the watchdog's hold."""

    def __init__(self, robot: Robot, guard: SafetyGuard) -> None:
        self.robot, self.guard = robot, guard
        self._lock = threading.Lock()

    def send(self, action: Any, **about: Any) -> Verdict:
        """Judge and send; about: as for `SafetyGuard.check`."""
        position = self.robot.position()
        with self._lock:
            verdict = self.guard.check(action, position=position, **about)
            self.robot.send(verdict.action)
        return verdict

    def watch(self) -> bool:
        """Send a hold if no command came for too long. True if it did."""
        with self._lock:
            hold = self.guard.poll()
            if hold is not None:
                self.robot.send(hold)
        return hold is not None


class Watchdog:
    """`with Watchdog(guarded):` watches from a thread of its own, four times in the guard's watchdog time."""

    def __init__(self, guarded: GuardedRobot) -> None:
        longest = guarded.guard.rules.limits.watchdog
        if not longest:
            raise expected("a guard with a watchdog", got="none", do="set the limits' `watchdog` in seconds")
        self._guarded, self._pause, self._over = guarded, longest / 4, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(self._pause):
            self._guarded.watch()

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@dataclass(frozen=True, kw_only=True)
class LoopReport:
    """ticks: of the control loop; late: those that began more than half a period late; tick: how long they took, and chunk:
    how long chunks took, in seconds; held: commands that held."""

    ticks: int
    late: int
    tick: Latency
    chunk: Latency
    held: int


def drive(
    executor: Executor,
    guarded: GuardedRobot,
    *,
    rate_hz: float,
    ticks: int | None = None,
    until: Callable[[], bool] = lambda: False,
    interpolator: Interpolator | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> LoopReport:
    """Run the control loop for so many ticks, or until `until` says so; `rate_hz` of them a second.

    With an interpolator the robot gets its commands, and the guard must have been made for their rate. A tick that comes late
    is not made up for by a faster one. If the policy or the robot raises, the guard's e-stop is latched, the robot is held, and
    the error goes on to the caller.
    """
    guard, period = guarded.guard, 1.0 / rate_hz
    parts = 1 if interpolator is None else interpolator.parts
    if abs(guard.rules.period * parts - period) > 1e-6 * period:
        raise expected(
            f"a guard for {rate_hz * parts:g} commands a second",
            got=f"one for {1 / guard.rules.period:g}",
            do="make it with `rate_hz` of the commands",
        )
    taken = LatencyTracker(window=1000)
    due, done, late, held = clock(), 0, 0, 0
    try:
        while (ticks is None or done < ticks) and not until():
            begun = clock()
            if begun - due > period / 2:
                late, due = late + 1, begun
            step = executor.tick(guarded.robot.observe)
            taken.add(clock() - begun)
            for part, action in enumerate(_parts(step.action, guard, interpolator)):
                _wait(due + part * period / parts, clock, sleep)
                verdict = guarded.send(action, seen_at=step.seen_at, sequence=step.sequence)
                held += verdict.held
            done, due = done + 1, due + period
            _wait(due, clock, sleep)
    except BaseException as error:
        guard.stop(f"the control loop ended: {type(error).__name__}")
        guarded.send(None)
        raise
    return LoopReport(ticks=done, late=late, tick=taken.summary, chunk=executor.planner.latency.summary, held=held)


def _parts(action: Any, guard: SafetyGuard, interpolator: Interpolator | None) -> list[Any]:
    """The commands of one tick. What is no action goes to the guard as it is, which holds."""
    if interpolator is None:
        return [action]
    numbers = None if action is None else as_numbers(action)
    if numbers is None or numbers.shape != guard.last.shape:
        return [action] * interpolator.parts
    return list(interpolator.commands(numbers, guard.last))


def _wait(until: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    if (left := until - clock()) > 0:
        sleep(left)
