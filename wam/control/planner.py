"""Who computes chunks while the robot moves: in simulated time with a latency that is given, or in a thread of its own.

Time is counted in ticks of the control loop. A chunk planned from what was seen at tick t has its action i for tick t + i,
whenever it is done.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wam.contracts import Observation, expected
from wam.control.continuation import Continuation, planned
from wam.control.latency import LatencyTracker, in_ticks
from wam.control.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Plan:
    """actions (K, A): one for each tick from `start` on, when its observation was taken. seen_at: that instant, in seconds of
    the planner's clock. sequence: number of the plan, from 0."""

    actions: np.ndarray
    start: int
    seen_at: float
    sequence: int

    def at(self, tick: int) -> np.ndarray | None:
        """(A,): the action for a tick, None where the plan has none."""
        return self.actions[tick - self.start] if self.start <= tick < self.start + len(self.actions) else None

    def left(self, tick: int) -> np.ndarray:
        """(R, A): from a tick on."""
        return self.actions[max(0, tick - self.start) :]


class Planner(Protocol):
    """Computes one plan at a time. policy: of the plans. latency: of the last ones."""

    policy: Policy
    latency: LatencyTracker

    @property
    def busy(self) -> bool:
        """Is a plan under way, or done and not collected?"""
        ...

    @property
    def delay(self) -> int:
        """Ticks that the next plan is expected to take."""
        ...

    def start(self, observation: Observation, *, tick: int, left: Continuation | None = None) -> None:
        """Begin a plan from what is seen at `tick`."""
        ...

    def collect(self, tick: int) -> Plan | None:
        """The plan under way, if it is done by `tick`. Raises what the policy raised."""
        ...

    def reset(self) -> None:
        """Drop the plan under way and let the policy forget: a new episode."""
        ...

    def drop(self) -> None:
        """Want the plan under way no more, without waiting for it. The policy forgets nothing."""
        ...


class SimulatedPlanner:
    """Computes at once and hands over late. delay: seconds that the n-th plan takes, or the same for all; period: of a tick;
    clock: seconds, of the same time as the guard's."""

    def __init__(
        self, policy: Policy, *, period: float, clock: Callable[[], float], delay: float | Callable[[int], float] = 0.0
    ) -> None:
        self.policy, self.latency = policy, LatencyTracker()
        self._period, self._clock, self._delay = period, clock, delay
        self._under_way: tuple[int, Plan] | None = None
        self._count = 0

    @property
    def busy(self) -> bool:
        return self._under_way is not None

    @property
    def delay(self) -> int:
        return self.latency.ticks(self._period)

    def start(self, observation: Observation, *, tick: int, left: Continuation | None = None) -> None:
        _require_idle(self)
        seconds = self._delay(self._count) if callable(self._delay) else self._delay
        plan = Plan(
            actions=planned(self.policy, observation, left),
            start=tick,
            seen_at=self._clock(),
            sequence=self._count,
        )
        self._count += 1
        self.latency.add(seconds)
        self._under_way = (tick + in_ticks(seconds, self._period), plan)

    def collect(self, tick: int) -> Plan | None:
        if self._under_way is None or tick < self._under_way[0]:
            return None
        plan, self._under_way = self._under_way[1], None
        return plan

    def reset(self) -> None:
        self.drop()
        self.policy.reset(0)

    def drop(self) -> None:
        self._under_way = None


class ThreadPlanner:
    """Computes in a thread, in real time. close() when done. pool: of other planners too, which then take turns; its owner
    shuts it down."""

    def __init__(
        self,
        policy: Policy,
        *,
        period: float,
        clock: Callable[[], float],
        window: int = 100,
        warm_up: int = 0,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self.policy, self.latency = policy, LatencyTracker(window, warm_up=warm_up)
        self._period, self._clock, self._count = period, clock, 0
        self._pool, self._owned = pool or ThreadPoolExecutor(1, thread_name_prefix="planner"), pool is None
        self._under_way: Future[tuple[Plan, float]] | None = None

    @property
    def busy(self) -> bool:
        return self._under_way is not None

    @property
    def delay(self) -> int:
        return self.latency.ticks(self._period)

    def start(self, observation: Observation, *, tick: int, left: Continuation | None = None) -> None:
        _require_idle(self)
        seen_at, number = self._clock(), self._count
        self._count += 1

        def compute() -> tuple[Plan, float]:
            actions = planned(self.policy, observation, left)
            return Plan(actions=actions, start=tick, seen_at=seen_at, sequence=number), self._clock() - seen_at

        self._under_way = self._pool.submit(compute)

    def collect(self, tick: int) -> Plan | None:
        if self._under_way is None or not self._under_way.done():
            return None
        done, self._under_way = self._under_way, None
        plan, seconds = done.result()
        self.latency.add(seconds)
        return plan

    def wait(self, timeout: float | None = None) -> None:
        """Until the plan under way is done. Raises TimeoutError, and what the policy raised."""
        if self._under_way is not None:
            self._under_way.result(timeout)

    def reset(self) -> None:
        """Waits for the plan under way: a policy cannot forget while it computes."""
        if self._under_way is not None:
            self._under_way.exception()
            self._under_way = None
        self.policy.reset(0)

    def drop(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()  # where it has not begun
            self._under_way = None

    def close(self) -> None:
        if self._owned:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ThreadPlanner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _require_idle(planner: Planner) -> None:
    if planner.busy:
        raise expected("one plan at a time", got="a second one", do="collect the first")
