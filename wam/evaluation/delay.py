"""What latency costs, and what real-time chunking saves of it: the same starts under injected delays, by every executor.

Time is simulated: a chunk comes so many ticks after what it was planned from, and the world goes on meanwhile, so the figures
do not depend on the machine. Commands pass the safety guard, which holds the robot where an executor has nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wam.contracts import ActionSpace, Observation, expected
from wam.control.executors import EXECUTORS, Executor, make_executor
from wam.control.guard import SafetyGuard
from wam.control.latency import in_ticks
from wam.control.planner import SimulatedPlanner
from wam.control.policy import Policy
from wam.control.wam_policy import load_policy
from wam.evaluation.episode_log import Episode, EpisodeLog
from wam.evaluation.evaluate import FIRST_START, seen_as_in, sentences_for
from wam.evaluation.figures import Measured
from wam.evaluation.rollout import sentence_for
from wam.files import sha256
from wam.progress import Progress
from wam.simulation.environment import Environment
from wam.training.state import newest_checkpoint, trained_config

PLAIN, NAIVE = "synchronous", "naive"


@dataclass(kw_only=True)
class DelayEvaluateConfig:
    """starts: unseen ones of each task. delays_ms: injected latency of a chunk; 0 among them. executors: by name, see
    `wam.control.executors`; judged: the one whose loss at the longest delay is compared with that of `naive`. execute:
    actions from one plan to the next, as far as the delay allows. max_steps: ticks of an episode, in which the robot may
    also stand still. policy_steps: sampling steps. jacobian: of guided inpainting, see `wam.model.inpainting`. output: empty:
    evaluation/delay of the run."""

    environments: list[str] = field(default_factory=list)
    starts: int = 20
    first_start: int = FIRST_START
    delays_ms: list[float] = field(default_factory=lambda: [0.0, 100.0, 200.0])
    executors: list[str] = field(default_factory=lambda: [PLAIN, NAIVE, "rtc-guided"])
    judged: str = "rtc-guided"
    execute: int = 6
    max_steps: int = 200
    policy_steps: int = 4
    jacobian: str = "identity"
    threads: int = 1
    seed: int = 0
    output: str = ""

    def validate(self) -> None:
        if not self.environments or self.starts < 1:
            raise expected("at least one environment and one start", got="none", do="name `environments`, set `starts`")
        if unknown := sorted({*self.executors, self.judged} - set(EXECUTORS)):
            raise expected(f"executors among {', '.join(EXECUTORS)}", got=unknown, do="rename them")
        if missing := {PLAIN, NAIVE, self.judged} - set(self.executors):
            raise expected("what is compared among the executors", got=self.executors, do=f"add {sorted(missing)}")
        if 0 not in self.delays_ms or max(self.delays_ms) <= 0:
            raise expected("delays of 0 and more milliseconds", got=self.delays_ms, do="keep 0 for comparison")


@dataclass(frozen=True, kw_only=True)
class DelayEpisode(Episode):
    """variant: executor and delay. held: ticks in which the guard held. seams: how often another plan, or none, took over;
    seam_jerk, jerk: sums of jerk over seams, and over the episode."""

    held: int
    seams: int
    seam_jerk: float
    jerk: float


class SimulatedClock:
    """Seconds that pass by the tick."""

    def __init__(self, period: float) -> None:
        self.period, self.ticks = period, 0

    def __call__(self) -> float:
        return self.ticks * self.period


def evaluate(run: Path, config: DelayEvaluateConfig, *, say: Callable[[str], None] = print) -> Measured:
    """Measure the newest checkpoint of a run; episodes already on record are not run again."""
    config.validate()
    if config.threads:
        torch.set_num_threads(config.threads)
    checkpoint = newest_checkpoint(run)
    policy = load_policy(checkpoint, steps=config.policy_steps, jacobian=config.jacobian)
    folder = Path(config.output) if config.output else run / "evaluation" / "delay"
    identity = {
        "checkpoint": sha256(checkpoint / "model.safetensors"),
        **{name: getattr(config, name) for name in ("execute", "max_steps", "policy_steps", "jacobian")},
    }
    log = EpisodeLog(folder / "episodes.jsonl", identity=identity, kind=DelayEpisode)
    return measure(policy, config, log=log, make=seen_as_in(trained_config(run)))


def measure(
    policy: Policy,
    config: DelayEvaluateConfig,
    *,
    log: EpisodeLog[DelayEpisode],
    make: Callable[..., Environment],
    told: Mapping[str, Any] | None = None,
) -> Measured:
    """The same for any policy. told: sentences by environment; the held-out ones where it is None."""
    told = sentences_for(config.environments, held_out=True) if told is None else told
    cells = [(executor, delay) for executor in config.executors for delay in config.delays_ms]
    starts = range(config.first_start, config.first_start + config.starts)
    found: dict[tuple[str, float], list[DelayEpisode]] = {cell: [] for cell in cells}
    rates: set[float] = set()
    with Progress("episodes", len(config.environments) * config.starts * len(cells)) as bar:
        for name in config.environments:
            environment = make(name, max_steps=config.max_steps)
            space = environment.action_space
            rates.add(space.rate_hz)
            for start in starts:
                sentence = sentence_for(told, name, start) or environment.instruction
                for executor, delay in cells:
                    variant = f"{executor}-{delay:g}ms"
                    known = log.episodes.get((name, start, variant))
                    if known is None:
                        clock = SimulatedClock(1 / space.rate_hz)
                        planner = SimulatedPlanner(policy, period=clock.period, clock=clock, delay=delay / 1e3)
                        known = drive(
                            environment,
                            make_executor(executor, planner, execute=config.execute),
                            clock,
                            start=start,
                            sentence=sentence,
                            variant=variant,
                            max_steps=config.max_steps,
                        )
                        log.add(known)
                    found[executor, delay].append(known)
                    bar.update(sum(map(len, found.values())))
            environment.close()
    return _judge(found, config, chunk=policy.chunk, rate_hz=max(rates))


def drive(
    environment: Environment,
    executor: Executor,
    clock: SimulatedClock,
    *,
    start: int,
    sentence: str,
    variant: str,
    max_steps: int,
) -> DelayEpisode:
    """One episode, each tick a command that the guard let pass."""
    guard = SafetyGuard(environment.action_space, clock=clock)
    fresh: list[Observation] = [environment.reset(start)]
    executor.reset()

    def observe() -> Observation:
        seen = fresh.pop() if fresh else environment.observe()
        return replace(seen, instruction=sentence)

    commands: list[np.ndarray] = []
    plans: list[int] = []
    held, reward, success, over = 0, 0.0, False, False
    while not (success or over or len(commands) >= max_steps):
        step = executor.tick(observe)
        verdict = guard.check(step.action, seen_at=step.seen_at, sequence=step.sequence)
        result = environment.step(verdict.action, render=False)
        fresh.clear()
        clock.ticks += 1
        commands.append(verdict.action)
        plans.append(-1 if verdict.held or step.sequence is None else step.sequence)
        held += verdict.held
        reward += float(result.reward)
        success, over = bool(result.success), bool(result.done)
    seams, seam_jerk, jerk = jerks(np.stack(commands), np.array(plans), environment.action_space)
    return DelayEpisode(
        environment=environment.name,
        seed=start,
        variant=variant,
        instruction=sentence,
        success=success,
        steps=len(commands),
        reward=reward,
        held=held,
        seams=seams,
        seam_jerk=seam_jerk,
        jerk=jerk,
    )


def jerks(commands: np.ndarray, plans: np.ndarray, space: ActionSpace) -> tuple[int, float, float]:
    """How many seams commands (T, A) of plans (T,) have, the sum of jerk over them, and over all ticks.

    Jerk is the third difference of where the commands lead, in units of the action space per tick cubed, the gripper left
    out. At a seam, between tick t - 1 and t, it is the larger of the two differences that span it.
    """
    moving = [i for i, name in enumerate(space.names) if name != space.gripper]
    speed = (
        commands[:, moving]
        if space.kind == "delta"
        else np.diff(commands[:, moving], axis=0, prepend=commands[:1, moving])
    )
    jerk = np.zeros(len(speed))
    jerk[1:-1] = np.linalg.norm(np.diff(speed, n=2, axis=0), axis=1)
    seams = np.flatnonzero(np.diff(plans)) + 1
    return len(seams), float(np.maximum(jerk[seams - 1], jerk[seams]).sum()), float(jerk.sum())


def _judge(
    found: Mapping[tuple[str, float], list[DelayEpisode]], config: DelayEvaluateConfig, *, chunk: int, rate_hz: float
) -> Measured:
    measured = Measured()
    longest = max(config.delays_ms)
    success = {cell: float(np.mean([e.success for e in episodes])) for cell, episodes in found.items()}
    for (executor, delay), episodes in found.items():
        label = f"{executor.replace('-', '_')}_{delay:g}ms"
        ticks, seams = sum(e.steps for e in episodes), sum(e.seams for e in episodes)
        measured.add(f"success_{label}", success[executor, delay], len(episodes))
        measured.add(f"held_{label}", sum(e.held for e in episodes) / ticks, ticks)
        measured.add(f"jerk_{label}", sum(e.jerk for e in episodes) / ticks, ticks)
        if seams:
            measured.add(f"seam_jerk_{label}", sum(e.seam_jerk for e in episodes) / seams, seams)
    n = config.starts * len(config.environments)
    lost = {name: success[PLAIN, 0.0] - success[name, longest] for name in (NAIVE, config.judged)}
    measured.add("naive_lost_points", 100 * lost[NAIVE], n)
    measured.add("rtc_lost_points", 100 * lost[config.judged], n)
    if lost[NAIVE] > 0:
        measured.add("rtc_loss_share", lost[config.judged] / lost[NAIVE], n)
    else:
        measured.unmeasured.append(
            f"rtc_loss_share: naive execution loses nothing at {longest:g} ms, so there is nothing to save"
        )
    for delay in config.delays_ms:
        if 2 * in_ticks(delay / 1e3, 1 / rate_hz) > chunk:
            measured.unmeasured.append(
                f"{delay:g} ms as asynchronous execution is meant: {chunk} actions at {rate_hz:g} Hz bridge at most "
                f"{1e3 * (chunk // 2) / rate_hz:g} ms, and then the robot is held"
            )
    return measured
