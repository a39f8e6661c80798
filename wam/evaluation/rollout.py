"""Receding-horizon episodes of many environments side by side in one process: plan K, execute the first few, repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wam.contracts import Observation, expected
from wam.control.policy import Policy
from wam.evaluation.episode_log import Episode, Rollout


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to run. instruction: what the policy is told, None for the environment's own sentence."""

    environment: str
    seed: int
    variant: str
    instruction: str | None = None
    record: bool = False


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """execute: actions carried out of each chunk (None: all of it). max_steps: None for the environment's own.
    slots: environments stepped together in a process. keep_failures: keep the frames at which a failed episode planned.
    """

    execute: int | None = None
    max_steps: int | None = None
    slots: int = 8
    keep_failures: bool = True

    def __post_init__(self) -> None:
        for name in ("execute", "max_steps", "slots"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise expected(f"{name} of at least 1", got=value, do=f"correct {name}")


@dataclass
class _Slot:
    """One environment and the episode running in it."""

    environment: Any
    job: Job
    observation: Observation
    steps: int = 0
    reward: float = 0.0
    finished: bool = False
    frames: list[np.ndarray] = field(default_factory=list)


Take = Callable[[str | None], Job | None]
"""Hand out the next job, of the preferred environment if there is one left, or None when all are handed out."""


def run_jobs(
    policy: Policy, take: Take, *, settings: LoopSettings, make_environment: Callable[[str], Any]
) -> Generator[tuple[Episode, Rollout | None], None, None]:
    """Run jobs until none is left, yielding each episode as it ends."""
    execute = settings.execute or policy.chunk
    if execute > policy.chunk:
        raise expected(
            f"execute of at most the chunk's {policy.chunk}", got=execute, do="execute fewer actions of each chunk"
        )
    slots: list[_Slot | None] = [None] * settings.slots
    try:
        while True:
            for i, slot in enumerate(slots):
                if slot is None or slot.finished:
                    slots[i] = _refill(slot, take, make_environment) or slot
                    if slots[i] is not slot:
                        policy.reset(i)
            last = max((i for i, slot in enumerate(slots) if slot and not slot.finished), default=None)
            if last is None:
                return
            batch = [slot for slot in slots[: last + 1] if slot]
            assert len(batch) == last + 1  # slots fill from the first, and a filled slot stays filled
            chunk = _plan(policy, [slot.observation for slot in batch], batch)
            for slot, actions in zip(batch, chunk, strict=True):
                if slot.finished:
                    continue
                success = _advance(slot, actions[:execute], settings)
                if slot.finished:
                    yield _close(slot, success, stride=1 if slot.job.record else execute, settings=settings)
    finally:
        for slot in slots:
            if slot:
                slot.environment.close()


def _refill(slot: _Slot | None, take: Take, make_environment: Callable[[str], Any]) -> _Slot | None:
    job = take(slot.job.environment if slot else None)
    if job is None:
        return None
    if slot and slot.job.environment == job.environment:
        environment = slot.environment
    else:
        if slot:
            slot.environment.close()
        environment = make_environment(job.environment)
    observation = _told(environment.reset(job.seed), job)
    started = _Slot(environment=environment, job=job, observation=observation)
    started.frames.append(_picture(observation, environment.cameras))
    return started


def _told(observation: Observation, job: Job) -> Observation:
    """The observation with the sentence of the job."""
    if job.instruction is None:
        return observation
    return dataclasses.replace(observation, instruction=job.instruction)


def _picture(observation: Observation, cameras: Sequence[str]) -> np.ndarray:
    """(V, H, W, 3) uint8 of all cameras, in the environment's order."""
    return np.stack([observation.images[name] for name in cameras])


def _plan(policy: Policy, observations: Sequence[Observation], slots: Sequence[_Slot]) -> np.ndarray:
    chunk = np.asarray(policy.act(observations))
    wanted = (len(observations), policy.chunk, slots[0].environment.action_space.dim)
    if chunk.shape != wanted:
        raise expected(f"actions of shape (B, K, A) = {wanted}", got=chunk.shape, do="check the policy's output")
    for slot, actions in zip(slots, chunk, strict=True):
        if not slot.finished and not np.isfinite(actions).all():
            raise expected(
                "finite actions from the policy",
                got=f"NaN or infinity in {slot.job.environment}, start {slot.job.seed}, step {slot.steps}",
                do="use an earlier checkpoint",
            )
    return chunk


def _advance(slot: _Slot, actions: np.ndarray, settings: LoopSettings) -> bool:
    """Carry out some actions, clipped to the action space; returns success. Renders only what is looked at."""
    space = slot.environment.action_space
    limit = settings.max_steps or slot.environment.max_steps
    for i, action in enumerate(np.clip(actions, space.low, space.high)):
        final = i == len(actions) - 1 or slot.steps + 1 >= limit
        result = slot.environment.step(action, render=final or slot.job.record)
        slot.steps += 1
        slot.reward += float(result.reward)
        slot.finished = bool(result.success or result.done or slot.steps >= limit)
        if final or slot.job.record or slot.finished:
            observation = result.observation or slot.environment.observe()
            slot.observation = _told(observation, slot.job)
            slot.frames.append(_picture(observation, slot.environment.cameras))
        if slot.finished:
            return bool(result.success)
    return False


def _close(slot: _Slot, success: bool, *, stride: int, settings: LoopSettings) -> tuple[Episode, Rollout | None]:
    episode = Episode(
        environment=slot.job.environment,
        seed=slot.job.seed,
        variant=slot.job.variant,
        instruction=slot.observation.instruction,
        success=success,
        steps=slot.steps,
        reward=slot.reward,
    )
    keep = slot.job.record or (settings.keep_failures and not success)
    return episode, Rollout(episode=episode, frames=np.stack(slot.frames), stride=stride) if keep else None


def sentence_for(instructions: Mapping[str, str | Sequence[str]] | None, environment: str, start: int) -> str | None:
    """The sentence told at the given start: one for all, or several taken in turns; None where none is given."""
    told = (instructions or {}).get(environment)
    if told is None or isinstance(told, str):
        return told
    return told[start % len(told)]
