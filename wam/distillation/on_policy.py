"""On-policy correction: the student drives in the simulator, and the teacher says what it would have done (DAgger).

A round is what the weights of one step do from starts of their own, so it repeats: a resumed run reads the rounds that are
on disk and drives only those that are not. A round that other weights drove is driven anew.

With `late`, its chunks come some ticks after what they were planned from, as on a robot that does not wait, and go on from
what is settled. The teacher, who is never late, is asked at what was seen when they came (`wam.distillation.rows.Late`).
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wam.contracts import Observation, expected
from wam.control.continuation import Continuation, planned
from wam.control.policy import Policy
from wam.control.wam_policy import WamPolicy, to_batch
from wam.distillation.config import OnPolicyConfig
from wam.distillation.rows import Late, Rows
from wam.distillation.teacher import Teacher
from wam.model.student import Student
from wam.progress import Progress
from wam.settings import to_plain
from wam.simulation.environment import Environment, make_environment
from wam.simulation.record import FIRST_SEED


@dataclass(frozen=True, kw_only=True)
class Planned:
    """seen: what a chunk was planned from; before (R, A): the actions that were carried out until it came; over: what was seen
    then."""

    seen: Observation
    before: np.ndarray
    over: Observation


@dataclass(frozen=True, kw_only=True)
class Drive:
    """plans: of an episode, but for one that never came; success: whether the task was done."""

    plans: list[Planned]
    success: bool


def drive(
    environment: Environment, policy: Policy, *, start: int, sentence: str, config: OnPolicyConfig, late: int = 0
) -> Drive:
    """One episode, told a sentence. late: ticks that a chunk takes, but for the first, for which the robot waits."""
    policy.reset()
    steps, success = 0, False

    def carry_out(actions: np.ndarray) -> Observation | None:
        """What is seen after them; None where the episode is over."""
        nonlocal steps, success
        for number, action in enumerate(actions):
            result = environment.step(action, render=number == len(actions) - 1)
            steps += 1
            if result.success or result.done or steps >= config.max_steps:
                success = result.success
                return None
        return replace(result.observation or environment.observe(), instruction=sentence)

    now: Observation | None = replace(environment.reset(start), instruction=sentence)
    plans: list[Planned] = []
    between = max(late, min(config.execute, policy.chunk - late))
    left = np.zeros((0, environment.action_space.dim))
    while now is not None:
        before = left[:late]
        chunk = planned(policy, now, Continuation(actions=left, delay=late, method="prefix") if len(before) else None)
        over = carry_out(before) if len(before) else now
        if over is None:
            break
        plans.append(Planned(seen=now, before=before, over=over))
        now = carry_out(chunk[len(before) : between]) if len(before) < between else over
        left = chunk[between:]
    return Drive(plans=plans, success=success)


class Rounds:
    """rows: of all rounds so far, None before the first. success: of each round's episodes."""

    def __init__(
        self,
        config: OnPolicyConfig,
        teacher: Teacher,
        folder: Path,
        *,
        sentences: Mapping[str, Sequence[str]],
        cameras: Sequence[str],
        seed: int,
    ) -> None:
        self.config, self.teacher, self.folder = config, teacher, folder
        self.names = config.environments or sorted(sentences)
        if not self.names or (unknown := set(self.names) - set(sentences)):
            raise expected(
                "demonstrations that say their environment, for the loss `on_policy`",
                got=f"none of {', '.join(sorted(unknown))}" if self.names else "none",
                do="name others in on_policy.environments, or give `on_policy` weight 0",
            )
        self.sentences, self.cameras, self.seed = sentences, tuple(cameras), seed
        self.rows: Rows | None = None
        self.success: list[float] = []

    def due(self, number: int, total: int) -> int:
        """The step before which a round is driven."""
        return math.ceil(total * (number + 1) / (self.config.rounds + 1))

    def advance(self, student: Student, step: int, total: int) -> bool:
        """Drive or read the rounds that are due; returns whether there was one. total 0: not known yet, and none is."""
        before = len(self.success)
        while total and len(self.success) < self.config.rounds and self.due(len(self.success), total) <= step:
            self._add(student, len(self.success), now=self.due(len(self.success), total) == step)
        return len(self.success) > before

    def count(self, step: int, total: int, batch_size: int) -> int:
        """Rows of a batch at this step: none before the first round, then the share grows evenly to the end."""
        if self.rows is None or not total:
            return 0
        first = self.due(0, total)
        low, high = self.config.share
        return round(batch_size * (low + (high - low) * (step - first) / max(1, total - 1 - first)))

    def _add(self, student: Student, number: int, *, now: bool) -> None:
        path = self.folder / f"round-{number}.safetensors"
        identity = {**self.teacher.identity, **to_plain(self.config), "seed": self.seed, "cameras": list(self.cameras)}
        found = Rows.kept(path, identity=identity)
        if now and (found is None or found[1]["student"] != weights_of(student)):
            rows, success = self._drive(student, number)
            about: dict[str, Any] = {"success": success, "student": weights_of(student)}
            rows.keep(path, identity=identity, **about)
            found = rows, about
        if found is None:
            raise expected(
                f"the episodes that the student drove earlier in this run, in {path}",
                got="none, or others",
                do="restore the file, or start anew with --fresh",
            )
        rows, about = found
        self.rows = rows if self.rows is None else Rows.joined([self.rows, rows])
        self.success.append(about["success"])

    def _drive(self, student: Student, number: int) -> tuple[Rows, float]:
        c, size = self.config, student.config.image_size
        policy = WamPolicy(student, cameras=self.cameras, steps=c.steps, device=student.missing.device)
        drives: list[Drive] = []
        with Progress(f"round {number + 1} of {c.rounds}: episodes", len(self.names) * c.episodes) as bar:
            for name in self.names:
                environment = make_environment(name, cameras=self.cameras, image_size=size, max_steps=c.max_steps)
                for episode in range(c.episodes):
                    luck = np.random.default_rng([self.seed, number, episode, zlib.crc32(name.encode())])
                    sentence = self.sentences[name][int(luck.integers(len(self.sentences[name])))]
                    start = int(luck.integers(FIRST_SEED, 2**31))
                    late = int(luck.integers(c.late + 1)) if c.late else 0
                    drives.append(drive(environment, policy, start=start, sentence=sentence, config=c, late=late))
                    bar.update(len(drives))
                environment.close()
        rows = self._judged(student, [plan for found in drives for plan in found.plans], number)
        return rows, float(np.mean([found.success for found in drives]))

    def _judged(self, student: Student, plans: Sequence[Planned], number: int) -> Rows:
        """Two rows for each plan: what it was made from, with what was settled, and what was seen when it came, without."""
        seed = self.teacher.config.seed + 7919 * (number + 1)
        over = to_batch([plan.over for plan in plans], self.cameras)
        on_time = Rows(seen=over, answers=self.teacher.answer(over, seed=seed))
        if not self.config.late:
            return on_time
        before = np.zeros((len(plans), self.config.late, student.config.action_dim), np.float32)
        for row, plan in enumerate(plans):
            before[row, : len(plan.before)] = plan.before
        ticks = torch.tensor([len(plan.before) for plan in plans])
        actions = student.normalizer("action").normalize(torch.from_numpy(before).to(student.missing.device)).cpu()
        late = Rows(
            seen=to_batch([plan.seen for plan in plans], self.cameras),
            answers=on_time.answers,
            late=Late(before=actions, ticks=ticks),
        )
        again = replace(on_time, late=Late(before=torch.zeros_like(actions), ticks=torch.zeros_like(ticks)))
        return Rows.joined([late, again])


def weights_of(student: Student) -> str:
    """A hash of a student's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(student.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
