"""Success in closed loop: every task from the same unseen starts, in one process or several, resumable at any point."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wam.contracts import expected
from wam.control.policy import Policy
from wam.evaluation import gates
from wam.evaluation.episode_log import Episode, EpisodeLog, Rollout
from wam.evaluation.intervals import Interval, mean_of_rates, mean_over_seeds, wilson
from wam.evaluation.rollout import Job, LoopSettings, run_jobs, sentence_for
from wam.evaluation.workers import claim, run_processes

PolicyFactory = Callable[[], Policy]
EnvironmentFactory = Callable[[str], Any]


@dataclass(frozen=True, kw_only=True)
class ClosedLoopResult:
    """All episodes of an evaluation, and the rollouts that were recorded."""

    episodes: tuple[Episode, ...]
    rollouts: tuple[Rollout, ...] = ()

    @property
    def tasks(self) -> dict[str, Interval]:
        """Success per environment, with Wilson's interval."""
        grouped: dict[str, list[bool]] = {}
        for episode in self.episodes:
            grouped.setdefault(episode.environment, []).append(episode.success)
        return {name: wilson(sum(flags), len(flags)) for name, flags in grouped.items()}

    @property
    def mean(self) -> Interval:
        """Mean over environments of the success rate."""
        return mean_of_rates(list(self.tasks.values()))

    @property
    def worst(self) -> float:
        return min(rate.value for rate in self.tasks.values())

    def figures(self) -> dict[str, float]:
        return {"success_mean": self.mean.value, "success_worst": self.worst}

    def to_dict(self) -> dict[str, Any]:
        """What `evaluation/success.json` holds for one evaluation."""
        return {
            "tasks": [
                {
                    "environment": name,
                    **asdict(rate),
                    "successes": round(rate.value * rate.n),
                    "instructions": sorted({e.instruction for e in self.episodes if e.environment == name}),
                    "mean_steps": sum(e.steps for e in self.episodes if e.environment == name) / rate.n,
                }
                for name, rate in self.tasks.items()
            ],
            "mean": asdict(self.mean),
            "worst": self.worst,
            "starts": sorted({e.seed for e in self.episodes}),
        }


def across_seeds(results: Sequence[ClosedLoopResult]) -> dict[str, Interval]:
    """Success per environment and as "mean", over policies trained with different seeds (Student's t)."""
    names = list(results[0].tasks)
    if any(list(r.tasks) != names for r in results):
        raise expected("the same tasks for every seed", got="different ones", do="evaluate all seeds alike")
    found = {name: mean_over_seeds([r.tasks[name].value for r in results]) for name in names}
    return {**found, "mean": mean_over_seeds([r.mean.value for r in results])}


def evaluate_policy(
    policy_factory: PolicyFactory,
    environment_names: Sequence[str],
    *,
    seeds: Sequence[int],
    settings: LoopSettings | None = None,
    variant: str = "policy",
    instructions: Mapping[str, str | Sequence[str]] | None = None,
    record: int = 0,
    record_failures: int = 1,
    processes: int = 1,
    resume: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    make_environment: EnvironmentFactory | None = None,
    progress: Callable[[int, int, Episode], None] | None = None,
) -> ClosedLoopResult:
    """Run every environment from every start and count successes.

    instructions: environment -> sentence, or sentences taken in turns, told instead of the environment's own.
    record: starts per environment whose every frame is kept; record_failures: failed episodes per environment kept at
    the frames where the policy planned. resume: a `.jsonl` file that gets each episode as it ends; with the same
    `identity` (say, the checkpoint's hash and the sampling steps) a second call runs only what is missing.
    With several processes both factories must be importable functions or `functools.partial`s of such.
    """
    settings = settings or LoopSettings()
    if make_environment is None:
        from wam.simulation.environment import make_environment as by_name

        make_environment = by_name
    if not environment_names or not seeds:
        raise expected("at least one environment and one start", got="none", do="name environments and seeds")
    log: EpisodeLog[Episode] = EpisodeLog(
        resume,
        identity={"execute": settings.execute, "max_steps": settings.max_steps, **(identity or {})},
    )
    jobs = {
        (name, int(seed), variant): Job(
            environment=name,
            seed=int(seed),
            variant=variant,
            instruction=sentence_for(instructions, name, i),
            record=i < record,
        )
        for i, seed in enumerate(seeds)
        for name in environment_names
    }
    pending = [job for key, job in jobs.items() if key not in log.episodes]
    failures = {name: 0 for name in environment_names}
    for key in (r.episode.key for r in log.rollouts):
        if key in jobs and not jobs[key].record:
            failures[key[0]] += 1
    done = len(jobs) - len(pending)

    def finished(episode: Episode, rollout: Rollout | None) -> None:
        nonlocal done
        if rollout is not None and not jobs[episode.key].record:
            failures[episode.environment] += 1
            if failures[episode.environment] > record_failures:
                rollout = None
        log.add(episode, rollout)
        done += 1
        if progress:
            progress(done, len(jobs), episode)

    if pending and processes <= 1:
        take = claim(pending, bytearray(len(pending)), threading.Lock())
        with contextlib.closing(
            run_jobs(policy_factory(), take, settings=settings, make_environment=make_environment)
        ) as episodes:
            for episode, rollout in episodes:
                finished(episode, rollout)
    elif pending:
        run_processes(
            policy_factory,
            pending,
            settings=settings,
            make_environment=make_environment,
            processes=min(processes, len(pending)),
            finished=finished,
        )
    return ClosedLoopResult(
        episodes=tuple(log.episodes[key] for key in jobs),
        rollouts=tuple(r for r in log.rollouts if r.episode.key in jobs),
    )


def evaluate_wrong_text(
    policy_factory: PolicyFactory,
    pairs: Sequence[tuple[str, str]],
    sentences: Mapping[str, str | Sequence[str]],
    *,
    seeds: Sequence[int],
    target: float | None = None,
    steps: int = 0,
    **options: Any,
) -> tuple[gates.GateResult, ClosedLoopResult]:
    """Gate (d): both tasks of every pair that shares a scene, each told the other's sentence.

    sentences: environment -> its own sentence or sentences. options: those of `evaluate_policy`.
    """
    partner = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    if missing := sorted(set(partner) - set(sentences)):
        raise expected(f"a sentence for {', '.join(partner)}", got=f"none for {', '.join(missing)}", do="give them")
    result = evaluate_policy(
        policy_factory,
        list(partner),
        seeds=seeds,
        variant="wrong_text",
        instructions={name: sentences[other] for name, other in partner.items()},
        **options,
    )
    gate = gates.wrong_text_success(
        [e.success for e in result.episodes],
        target=target,
        steps=steps,
        per_task={name: rate.value for name, rate in result.tasks.items()},
        pairs=[list(pair) for pair in pairs],
    )
    return gate, result
