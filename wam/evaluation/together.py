"""Policies that work together, driven beside each of them alone: the same unseen starts, and what each chunk cost.

Episodes run one after the other in this process, since a policy's own counts are part of what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import expected
from wam.control.policy import Policy
from wam.evaluation.episode_log import Episode, EpisodeLog
from wam.evaluation.evaluate import FIRST_START, sentences_for
from wam.evaluation.rollout import sentence_for
from wam.progress import Progress
from wam.simulation.environment import Environment


@dataclass(kw_only=True)
class TogetherConfig:
    """environments, starts, first_start, held_out_sentences, execute, max_steps: as in `wam eval`. teacher: a run; empty: that
    which the student's provenance names. teacher_steps, student_steps: of sampling (of a student with a flow head)."""

    environments: list[str] = field(default_factory=list)
    teacher: str = ""
    starts: int = 20
    first_start: int = FIRST_START
    held_out_sentences: bool = True
    execute: int = 6
    max_steps: int = 200
    teacher_steps: int = 1
    student_steps: int = 1
    threads: int = 1
    seed: int = 0
    output: str = ""

    def validate(self) -> None:
        if not self.environments or self.starts < 1:
            raise expected("at least one environment and one start", got="none", do="name `environments`, set `starts`")


@dataclass(frozen=True, kw_only=True)
class TalliedEpisode(Episode):
    """chunks: planned; planning_s: seconds that took, on this machine; tally: what the policy counted of them."""

    chunks: int
    planning_s: float
    tally: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One contestant's episodes."""

    name: str
    episodes: tuple[TalliedEpisode, ...]

    @property
    def success(self) -> float:
        return float(np.mean([episode.success for episode in self.episodes]))

    @property
    def chunks(self) -> int:
        return sum(episode.chunks for episode in self.episodes)

    @property
    def chunk_ms(self) -> float:
        return 1e3 * sum(episode.planning_s for episode in self.episodes) / self.chunks

    def share(self, what: str) -> float:
        """Of all chunks, those counted under this name."""
        return sum(episode.tally.get(what, 0) for episode in self.episodes) / self.chunks


def drive_side(
    name: str,
    policy: Callable[[], Policy],
    config: TogetherConfig,
    folder: Path,
    *,
    identity: Mapping[str, Any],
    make: Callable[..., Environment],
    told: Mapping[str, Any] | None = None,
) -> Side:
    """Every environment from every start; episodes on record are not driven again. told: sentences by environment; those of the
    config where it is None."""
    told = sentences_for(config.environments, held_out=config.held_out_sentences) if told is None else told
    about = {key: getattr(config, key) for key in ("execute", "max_steps", "held_out_sentences", "seed")}
    log = EpisodeLog(folder / f"{name}.jsonl", identity={**about, **identity}, kind=TalliedEpisode)
    starts = range(config.first_start, config.first_start + config.starts)
    found: list[TalliedEpisode] = []
    driver: Policy | None = None
    with Progress(f"episodes of {name}", len(config.environments) * config.starts) as bar:
        for environment_name in config.environments:
            environment: Environment | None = None
            for start in starts:
                known = log.episodes.get((environment_name, start, name))
                if known is None:
                    environment = environment or make(environment_name, max_steps=config.max_steps)
                    driver = driver or policy()
                    sentence = sentence_for(told, environment_name, start) or environment.instruction
                    known = drive(environment, driver, config, start=start, sentence=sentence, variant=name)
                    log.add(known)
                found.append(known)
                bar.update(len(found))
            if environment is not None:
                environment.close()
    return Side(name=name, episodes=tuple(found))


def drive(
    environment: Environment, policy: Policy, config: TogetherConfig, *, start: int, sentence: str, variant: str
) -> TalliedEpisode:
    """One episode: plan, carry out `execute` actions, look again."""
    if not 1 <= config.execute <= policy.chunk:
        raise expected(
            f"execute from 1 to the chunk's {policy.chunk}",
            got=config.execute,
            do="execute fewer actions of each chunk",
        )
    counted: Mapping[str, int] = getattr(policy, "tally", {})
    before = dict(counted)
    policy.reset(0)
    space, seen = environment.action_space, environment.reset(start)
    steps, chunks, spent, reward, success, over = 0, 0, 0.0, 0.0, False, False
    while not over:
        begun = time.perf_counter()
        actions = policy.act([replace(seen, instruction=sentence)])[0]
        spent, chunks = spent + time.perf_counter() - begun, chunks + 1
        for number, action in enumerate(np.clip(actions[: config.execute], space.low, space.high)):
            result = environment.step(action, render=number == min(config.execute, len(actions)) - 1)
            steps, reward = steps + 1, reward + float(result.reward)
            success = bool(result.success)
            over = success or bool(result.done) or steps >= config.max_steps
            if over:
                break
        else:
            seen = result.observation or environment.observe()
    return TalliedEpisode(
        environment=environment.name,
        seed=start,
        variant=variant,
        instruction=sentence,
        success=success,
        steps=steps,
        reward=reward,
        chunks=chunks,
        planning_s=spent,
        tally={name: count - before[name] for name, count in counted.items()},
    )
