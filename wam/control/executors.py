"""Executors: a policy gives chunks, an executor gives one action per tick of the control loop.

| name           | while the next chunk is computed | when it comes |
|----------------|----------------------------------|---------------|
| `synchronous`  | the robot stands still           | its first `execute` actions are carried out |
| `naive`        | the chunk before goes on         | the robot goes over to it at the present tick |
| `ensemble`     | the chunk before goes on         | all chunks that speak of the tick are averaged (ACT) |
| `rtc-guided`, `rtc-prefix`, `rtc-blend` | the chunk before goes on | as `naive`; it was drawn to agree with the one before |

Ticks in which the robot stood still while a chunk was computed, as at the beginning, are none of that chunk's.
Asynchronous executors start a chunk as late as `execute` says, but early enough to have it before the one before ends: a
chunk of K actions bridges a latency of d ticks if 2 d <= K. Where nothing is left they give no action, and the guard
holds. Real-time chunking is that of Black, Galliker and Levine 2025; see `wam.control.continuation` for its methods, of
which `prefix` is that of training where the model was trained with prefixes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np

from wam.contracts import Observation, expected
from wam.control.continuation import METHODS, Continuation, ContinuingPolicy, Method, cannot_continue
from wam.control.planner import Plan, Planner

EXECUTORS = ("synchronous", "naive", "ensemble", *(f"rtc-{method}" for method in METHODS))


@dataclass(frozen=True, kw_only=True)
class Step:
    """action (A,): for this tick, or None where there is nothing to carry out. sequence, seen_at: of the newest plan in it."""

    action: np.ndarray | None = None
    sequence: int | None = None
    seen_at: float | None = None


class Executor(Protocol):
    """tick: one call for each tick of the control loop; `observe` is called only where a plan starts from what it gives."""

    planner: Planner

    def reset(self) -> None: ...
    def tick(self, observe: Callable[[], Observation]) -> Step: ...


class Synchronous:
    """Look, plan, carry out `execute` actions, look again."""

    def __init__(self, planner: Planner, *, execute: int) -> None:
        self.planner, self.execute = planner, _within(execute, planner)
        self.reset()

    def reset(self) -> None:
        self.planner.reset()
        self._now, self._next = 0, 0
        self._plan: Plan | None = None

    def tick(self, observe: Callable[[], Observation]) -> Step:
        now = self._now
        self._now += 1
        if self._plan is None or self._next >= self.execute:
            if not self.planner.busy:
                self.planner.start(observe(), tick=now)
            self._plan, self._next = self.planner.collect(now), 0
        if self._plan is None:
            return Step()
        self._next += 1
        return Step(action=self._plan.actions[self._next - 1], sequence=self._plan.sequence, seen_at=self._plan.seen_at)


class Asynchronous:
    """Plans while it carries out, and goes over to a plan as soon as it is there: `naive`."""

    def __init__(self, planner: Planner, *, execute: int) -> None:
        self.planner, self.execute = planner, _within(execute, planner)
        self.reset()

    def reset(self) -> None:
        self.planner.reset()
        self._now, self._given, self._given_before = 0, 0, 0
        self._plans: list[Plan] = []

    @property
    def horizon(self) -> int:
        """Ticks from the start of one plan to that of the next: d <= s <= K - d where there is such an s."""
        delay = self.planner.delay
        return max(delay, min(self.execute, self.planner.policy.chunk - delay), 1)

    def tick(self, observe: Callable[[], Observation]) -> Step:
        now = self._now
        self._now += 1
        self._collect(now)
        if not self.planner.busy and (not self._plans or now - self._plans[-1].start >= self.horizon):
            self._given_before = self._given
            self.planner.start(observe(), tick=now, left=self._left(now))
            self._collect(now)
        step = self._step([plan for plan in self._plans if plan.at(now) is not None], now)
        self._given += step.action is not None
        return step

    def _collect(self, now: int) -> None:
        if (plan := self.planner.collect(now)) is not None:
            carried_out = self._given - self._given_before  # since it was seen; the robot may have stood still at times
            self._plans.append(replace(plan, start=now - carried_out))
        self._plans = [plan for plan in self._plans[:-1] if plan.at(now) is not None] + self._plans[-1:]

    def _left(self, now: int) -> Continuation | None:
        return None

    def _step(self, plans: list[Plan], now: int) -> Step:
        if not plans:
            return Step()
        return Step(action=plans[-1].at(now), sequence=plans[-1].sequence, seen_at=plans[-1].seen_at)


class Ensembling(Asynchronous):
    """Temporal ensembling: all plans that speak of a tick are averaged with weights exp(-decay i), i = 0 the oldest.

    Source: ACT (Zhao et al. 2023), where decay is 0.01 and every tick has a plan of its own (`execute` 1).
    """

    decay = 0.01

    def _step(self, plans: list[Plan], now: int) -> Step:
        newest = super()._step(plans, now)
        if newest.action is None:
            return newest
        weights = np.exp(-self.decay * np.arange(len(plans)))
        actions = np.stack([cast(np.ndarray, plan.at(now)) for plan in plans])
        mean = (weights[:, None] * actions).sum(0) / weights.sum()
        return Step(action=mean, sequence=newest.sequence, seen_at=newest.seen_at)


class RealTimeChunking(Asynchronous):
    """Each plan is drawn to agree with what is left of the one before, by `method`."""

    def __init__(self, planner: Planner, *, execute: int, method: Method = "guided") -> None:
        if method != "blend" and not isinstance(planner.policy, ContinuingPolicy):
            raise cannot_continue(planner.policy, method)
        self.method = method
        super().__init__(planner, execute=execute)

    def _left(self, now: int) -> Continuation | None:
        left = self._plans[-1].left(now) if self._plans else np.zeros((0, 0))
        if not len(left) or not np.isfinite(left).all():  # a broken plan is not to be continued
            return None
        return Continuation(actions=left, delay=min(self.planner.delay, len(left)), method=self.method)


def make_executor(name: str, planner: Planner, *, execute: int) -> Executor:
    """An executor by name. execute: actions from one plan to the next, as far as latency lets it choose.

    Raises WamError for an unknown name, and where the policy cannot do what the name says.
    """
    if name == "synchronous":
        return Synchronous(planner, execute=execute)
    if name == "naive":
        return Asynchronous(planner, execute=execute)
    if name == "ensemble":
        return Ensembling(planner, execute=execute)
    kind, _, method = name.partition("-")
    if kind == "rtc" and method in METHODS:
        return RealTimeChunking(planner, execute=execute, method=cast(Method, method))
    raise expected(f"an executor among {', '.join(EXECUTORS)}", got=repr(name), do="name one of them")


def _within(execute: int, planner: Planner) -> int:
    if not 1 <= execute <= planner.policy.chunk:
        raise expected(
            f"execute from 1 to the chunk's {planner.policy.chunk}", got=execute, do="execute fewer actions of each"
        )
    return execute
