"""A slow world-action model and a fast student together: the one thinks a few times a second, the other acts in between.

    policy = load_paired("runs/distill/paired-0", hz=2)  # a thread for the model, which nobody waits for
    policy.act([observation])                            # the student, handed the model's newest thought and its age
    policy.tally, policy.ages.summary, policy.thinking.summary

Helix (Figure 2025) and GR00T N1 (NVIDIA 2025) are built so. A thought is asked for as a plan of one "action" is, so both kinds
of `wam.control.planner` do. What the student is handed is described in `wam.model.thought`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from wam.contracts import Observation, expected
from wam.control.latency import LatencyTracker
from wam.control.planner import Plan, Planner, SimulatedPlanner, ThreadPlanner
from wam.control.wam_policy import WamPolicy, teacher_of, to_batch
from wam.model.pretrained import from_pretrained
from wam.model.student import Student
from wam.model.thought import Kind, Thought, think
from wam.model.wam import WorldActionModel

FRESH, STALE, ABSENT = "fresh", "stale", "absent"


class Thinker:
    """A world-action model whose answers are its thoughts: (B, 1, D), as one action each. It remembers nothing.

    Raises WamError for a model that looks back: it would be shown frames that are farther apart than in training.
    """

    chunk = 1

    def __init__(
        self,
        model: WorldActionModel,
        *,
        kind: Kind,
        cameras: Sequence[str] | None = None,
        steps: int = 1,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if kind == "none" or kind not in get_args(Kind):
            raise expected("thoughts of kind context or goal", got=kind, do="use a student that is handed some")
        if model.config.history > 1:
            raise expected(
                "a slow model that acts on one frame",
                got=f"one that looks back over {model.config.history}",
                do="use another teacher",
            )
        self.model, self.cameras, self.device = model.to(device).eval(), tuple(cameras or model.cameras), device
        self.kind = kind
        self.options: dict[str, Any] = {"steps": steps, "seed": seed}

    def reset(self, index: int | None = None) -> None:
        """There is nothing to forget."""

    @torch.no_grad()
    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        batch = to_batch(observations, self.cameras).to(self.device)
        return think(self.model, batch, kind=self.kind, **self.options)[:, None].cpu().numpy()


Ticks = Callable[[int], int]
"""The present tick of a slot's control loop, from how often the slot was asked in its episode before."""


def in_step(execute: int) -> Ticks:
    """Time of a simulator that waits for the policy and carries out `execute` actions of each chunk."""
    return lambda asked: asked * execute


def by_clock(clock: Callable[[], float], rate_hz: float) -> Ticks:
    """Time that goes on by itself, in seconds."""
    return lambda asked: int(clock() * rate_hz)


@dataclass(kw_only=True)
class _Mind:
    """Of one slot. asked: calls in this episode; begun: tick and sentence of the newest thought that was begun; newest: the
    newest that came."""

    planner: Planner
    told: str
    asked: int = 0
    begun: int | None = None
    newest: Plan | None = None


class PairedPolicy(WamPolicy):
    """A student that is handed the newest thought of each slot, and acts whether or not there is one.

    planner: makes a planner of a `Thinker`, one for each slot. every: ticks from one thought's start to the next's, at least.
    ticks: see `Ticks`. tally: how many chunks had a thought of use (`fresh`), one that was too old (`stale`), none (`absent`).
    ages: of those that there were, in seconds; thinking: how long they took.

    A thought is of one sentence: another sentence, like another episode, begins without any. What the slow model raises, the
    next call of `act` raises.
    """

    def __init__(
        self, student: Student, planner: Callable[[], Planner], *, every: int, ticks: Ticks, **options: Any
    ) -> None:
        super().__init__(student, **options)
        if student.recall is None or student.action_space is None:
            raise expected(
                "a student that learned to be handed thoughts, and names its action space",
                got="one that acts alone, or does not",
                do="distill it with configs/distill/paired.yaml",
            )
        self.max_age, self.dim = student.config.thought.max_age, student.config.thought.dim
        self.every, self.ticks, self._make = max(1, every), ticks, planner
        self._period = 1 / student.action_space.rate_hz
        self.tally: Counter[str] = Counter({FRESH: 0, STALE: 0, ABSENT: 0})
        self.ages, self.thinking = LatencyTracker(1000), LatencyTracker()
        self._minds: dict[int, _Mind] = {}

    def reset(self, index: int | None = None) -> None:
        """Forget slot `index`, or every slot; what is thought of it is not waited for."""
        super().reset(index)
        for slot in list(self._minds) if index is None else [index]:
            if (mind := self._minds.pop(slot, None)) is not None:
                mind.planner.drop()

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        """(B, K, A) actions of the student."""
        slots = range(len(observations)) if slots is None else slots
        held = [self._newest(slot, seen) for slot, seen in zip(slots, observations, strict=True)]
        values = np.stack([np.zeros(self.dim) if plan is None else plan.actions[0] for plan, _ in held])
        thought = Thought(
            values=torch.from_numpy(values.astype(np.float32)),
            age=torch.tensor([age for _, age in held], dtype=torch.float32),
        )
        return self._act(observations, slots, thought=thought.to(self.device))

    def _newest(self, slot: int, seen: Observation) -> tuple[Plan | None, float]:
        """The newest thought of a slot and its age in ticks; begins the next one where it is time."""
        mind = self._minds.get(slot)
        if mind is None or mind.told != seen.instruction:
            if mind is not None:
                mind.planner.drop()
            mind = self._minds[slot] = _Mind(planner=self._make(), told=seen.instruction)
            mind.planner.latency = self.thinking
        now = self.ticks(mind.asked)
        mind.asked += 1
        mind.newest = mind.planner.collect(now) or mind.newest
        if not mind.planner.busy and (mind.begun is None or now - mind.begun >= self.every):
            mind.planner.start(seen, tick=now)
            mind.begun = now
            mind.newest = mind.planner.collect(now) or mind.newest
        if mind.newest is None:
            self.tally[ABSENT] += 1
            return None, np.inf
        if mind.newest.actions.shape[1] != self.dim:
            raise expected(
                f"thoughts of {self.dim} numbers",
                got=mind.newest.actions.shape[1],
                do="use the model that the student learned from",
            )
        age = now - mind.newest.start
        self.ages.add(age * self._period)
        self.tally[FRESH if age <= self.max_age else STALE] += 1
        return mind.newest, age


def paired_in_step(
    student: Student, thinker: Thinker, *, execute: int, hz: float, delay: float, **options: Any
) -> PairedPolicy:
    """In simulated time: the simulator waits, and each thought comes `delay` seconds after what it is of."""
    rate, ticks = _rate(student), in_step(execute)

    def planner() -> Planner:
        return SimulatedPlanner(thinker, period=1 / rate, clock=lambda: 0.0, delay=delay)

    return PairedPolicy(student, planner, every=round(rate / hz), ticks=ticks, **options)


def paired_in_thread(
    student: Student,
    thinker: Thinker,
    *,
    hz: float,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> PairedPolicy:
    """In real time: one thread thinks of all slots in turns."""
    rate = _rate(student)
    pool = ThreadPoolExecutor(1, thread_name_prefix="thinker")

    def planner() -> Planner:
        return ThreadPlanner(thinker, period=1 / rate, clock=clock, pool=pool)

    return PairedPolicy(student, planner, every=round(rate / hz), ticks=by_clock(clock, rate), **options)


def load_pair(
    checkpoint: str | Path, *, teacher: str | Path | None = None, device: str = "cpu", seed: int = 0
) -> tuple[Student, Thinker]:
    """A student and the model whose thoughts it learned to be handed: by default that which its provenance names."""
    student = Student.from_pretrained(checkpoint)
    model = from_pretrained(teacher or teacher_of(Path(checkpoint)))
    own = student.config.thought
    return student, Thinker(model, kind=own.kind, cameras=student.cameras, steps=own.steps, seed=seed, device=device)


def load_paired(
    checkpoint: str | Path, *, teacher: str | Path | None = None, hz: float = 2.0, threads: int = 0, **options: Any
) -> PairedPolicy:
    """Both of a student's checkpoint, in real time. options: of `WamPolicy`."""
    if threads:
        torch.set_num_threads(threads)
    student, thinker = load_pair(checkpoint, teacher=teacher, device=options.get("device", "cpu"))
    return paired_in_thread(student, thinker, hz=hz, **options)


def _rate(student: Student) -> float:
    if student.action_space is None:
        raise expected("a student that names its action space", got="none", do="distill it from data that has one")
    return student.action_space.rate_hz
