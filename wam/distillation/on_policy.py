"""On-policy correction: the student drives in the simulator, and the teacher says what it would have done (DAgger).

A round is what the weights of one step do from starts of their own, so it repeats: a resumed run reads the rounds that are
on disk and drives only those that are not. A round that other weights drove is driven anew.
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
from wam.control.policy import Policy
from wam.control.wam_policy import WamPolicy, to_batch
from wam.distillation.config import OnPolicyConfig
from wam.distillation.rows import Rows
from wam.distillation.teacher import Teacher
from wam.model.student import Student
from wam.progress import Progress
from wam.settings import to_plain
from wam.simulation.environment import Environment, make_environment
from wam.simulation.record import FIRST_SEED


@dataclass(frozen=True, kw_only=True)
class Drive:
    """seen: what an episode's chunks were planned from; success: whether the task was done."""

    seen: list[Observation]
    success: bool


def drive(environment: Environment, policy: Policy, *, start: int, sentence: str, config: OnPolicyConfig) -> Drive:
    """One episode, told a sentence."""
    policy.reset()
    now, planned, steps = environment.reset(start), [], 0
    while True:
        told = replace(now, instruction=sentence)
        planned.append(told)
        actions = policy.act([told])[0, : config.execute]
        for number, action in enumerate(actions):
            result = environment.step(action, render=number == len(actions) - 1)
            steps += 1
            if result.success or result.done or steps >= config.max_steps:
                return Drive(seen=planned, success=result.success)
        now = result.observation or environment.observe()


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
                    drives.append(drive(environment, policy, start=start, sentence=sentence, config=c))
                    bar.update(len(drives))
                environment.close()
        seen = to_batch([one for found in drives for one in found.seen], self.cameras)
        answers = self.teacher.answer(seen, seed=self.teacher.config.seed + 7919 * (number + 1))
        return Rows(seen=seen, answers=answers), float(np.mean([found.success for found in drives]))


def weights_of(student: Student) -> str:
    """A hash of a student's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(student.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
