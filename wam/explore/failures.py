"""Recorded failures, carried out again step by step: what was expected of each plan, what was done, and what came of it.

An evaluation keeps of a failure how it began and how it ended (`evaluation/episodes.jsonl`), and for a few of them the
frames at which the policy planned. Starts, policy and simulator repeat, so the rest is found again, and held against
those frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import Batch, Observation, expected
from wam.control.wam_policy import WamPolicy, to_batch
from wam.evaluation.closed_loop import EnvironmentFactory
from wam.evaluation.episode_log import Episode, Rollout, read_log
from wam.evaluation.evaluate import concatenate, seen_as_in
from wam.evaluation.pictures import to_uint8
from wam.explore.explorer import Explorer
from wam.model.wam import CONTEXT, WorldActionModel

LOG = Path("evaluation") / "episodes.jsonl"
AGREES = 0.01
"""Mean difference to the recorded frames, as a share of the brightness range, below which a retrace is the recorded episode."""
AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A failure carried out again. frames (1 + N, V, H, W, 3) uint8, one a step; executed (N, A); plans: the steps at which the
    policy planned; chunks: what, (K, A) each; imagined: (V, T, H, W, 3) uint8 each, what forward dynamics expects of them.
    words: whether this is what was recorded."""

    frames: np.ndarray
    executed: np.ndarray
    plans: tuple[int, ...]
    chunks: tuple[np.ndarray, ...]
    imagined: tuple[np.ndarray, ...]
    offsets: tuple[int, ...]
    execute: int
    rate_hz: float
    success: bool
    words: str

    @property
    def steps(self) -> int:
        return len(self.executed)

    @property
    def seconds(self) -> tuple[float, ...]:
        return tuple(offset / self.rate_hz for offset in self.offsets)

    def came(self, plan: int) -> np.ndarray | None:
        """(V, T, H, W, 3): the frames at the moments that were imagined; None where the episode was over by then."""
        at = [self.plans[plan] + offset for offset in self.offsets]
        return None if at[-1] > self.steps else np.moveaxis(self.frames[at], 0, 1)

    @cached_property
    def errors(self) -> tuple[float | None, ...]:
        """By plan: mean difference of what was imagined to what came, as a share of the brightness range."""
        return tuple(self._differs(plan, self.imagined[plan]) for plan in range(len(self.plans)))

    @cached_property
    def moved(self) -> tuple[float | None, ...]:
        """By plan: the same of the present, which is how much there was to imagine."""
        return tuple(self._differs(plan, self.frames[now][:, None]) for plan, now in enumerate(self.plans))

    def _differs(self, plan: int, frames: np.ndarray) -> float | None:
        came = self.came(plan)
        return None if came is None else float(np.abs(came.astype(np.float32) - frames).mean() / 255)


@dataclass(frozen=True, kw_only=True)
class Failures:
    """episodes: those that were not solved, the policy's own first. rollouts: frames of some of them. identity: how they were
    evaluated. why: there are none, if there are none."""

    episodes: tuple[Episode, ...] = ()
    rollouts: Mapping[tuple[str, int, str], Rollout] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    make_environment: EnvironmentFactory | None = None
    why: str = "no evaluation was given"

    def retrace(self, which: int, explorer: Explorer, *, say: Callable[[str], None] = lambda words: None) -> Trace:
        """Carry out the failure at that place of `episodes` again. Raises WamError where the simulator is not installed."""
        if not 0 <= which < len(self.episodes) or self.make_environment is None:
            raise expected(f"one of {len(self.episodes)} recorded failures", got=which, do="evaluate the run first")
        episode, model = self.episodes[which], explorer.model
        policy = WamPolicy(
            model,
            conditional=str(self.identity.get("conditional", "policy")),
            steps=int(self.identity.get("steps", 4)),
        )
        execute = int(self.identity.get("execute") or policy.chunk)
        environment = self.make_environment(episode.environment)
        try:
            limit = int(self.identity.get("max_steps") or environment.max_steps)
            course = _carry_out(environment, policy, episode, execute=execute, limit=limit, say=say)
        finally:
            environment.close()
        say("imagining what was expected of each plan")
        return Trace(
            frames=np.stack(course.frames),
            executed=np.stack(course.executed),
            plans=tuple(course.plans),
            chunks=tuple(course.chunks),
            imagined=_expected(model, course.batches, course.chunks),
            offsets=tuple(model.config.future),
            execute=execute,
            rate_hz=environment.action_space.rate_hz,
            success=course.success,
            words=self._compared(episode, course, explorer),
        )

    def _compared(self, episode: Episode, course: _Course, explorer: Explorer) -> str:
        """Whether the retrace is what was recorded."""
        made = str(explorer.model.provenance.get("sha256", {}).get("model.safetensors", ""))
        if self.identity.get("checkpoint") not in (None, made):
            return "Recorded with other weights: this is what the present ones do from the same start."
        ended = "solved" if course.success else "not solved"
        if course.success or len(course.executed) != episode.steps:
            return (
                f"The record says not solved after {episode.steps} steps; carried out again it was {ended} after "
                f"{len(course.executed)}. Small differences in arithmetic can part two courses."
            )
        kept = self.rollouts.get(episode.key)
        if kept is None:
            return f"Carried out again: not solved after {episode.steps} steps, as recorded."
        steps = [min(number * kept.stride, len(course.executed)) for number in range(len(kept.frames))]
        error = float(np.abs(np.stack(course.frames)[steps].astype(np.float32) - kept.frames).mean() / 255)
        same = "the same frames as recorded" if error < AGREES else "but not the frames that were recorded"
        return f"Carried out again: not solved after {episode.steps} steps, {same} (mean difference {error:.4f})."


@dataclass(kw_only=True)
class _Course:
    frames: list[np.ndarray] = field(default_factory=list)
    executed: list[np.ndarray] = field(default_factory=list)
    plans: list[int] = field(default_factory=list)
    chunks: list[np.ndarray] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    success: bool = False


def recorded_failures(run: Path, explorer: Explorer) -> Failures:
    """Those of a run's evaluation. Raises WamError for a log that is damaged."""
    if not (run / LOG).is_file():
        return Failures(why=f"no episodes were recorded in {run}; run `wam eval {run}` first")
    identity, episodes, rollouts = read_log(run / LOG)
    failed = [episode for episode in episodes if not episode.success]
    trained = explorer.trained
    if trained is None:
        return Failures(why="the checkpoint does not say which cameras it was trained with")
    return Failures(
        episodes=tuple(sorted(failed, key=lambda episode: episode.variant != "policy")),
        rollouts={rollout.episode.key: rollout for rollout in rollouts},
        identity=identity,
        make_environment=seen_as_in(trained, moved=float(identity.get("moved", 0.0))),
        why="" if failed else f"all {len(episodes)} recorded episodes were solved",
    )


def _carry_out(
    environment: Any, policy: WamPolicy, episode: Episode, *, execute: int, limit: int, say: Callable[[str], None]
) -> _Course:
    """As `wam.evaluation.rollout` does, one episode alone, looking at every step."""
    space, course = environment.action_space, _Course()
    seen = _told(environment.reset(episode.seed), episode)
    course.frames.append(_pictures(seen, policy.cameras))
    policy.reset()
    done = False
    while not done and len(course.executed) < limit:
        chunk = policy.act([seen])[0]
        course.plans.append(len(course.executed))
        course.chunks.append(chunk)
        course.batches.append(_as_shown(policy, seen))
        say(f"carrying it out again: step {len(course.executed)} of at most {limit}")
        for action in np.clip(chunk[:execute], space.low, space.high):
            result = environment.step(action)
            seen = _told(result.observation or environment.observe(), episode)
            course.frames.append(_pictures(seen, policy.cameras))
            course.executed.append(np.asarray(action, np.float32))
            course.success, done = bool(result.success), bool(result.success or result.done)
            if done or len(course.executed) >= limit:
                break
    return course


def _as_shown(policy: WamPolicy, seen: Observation) -> Batch:
    """What the policy has just been shown, with the frames before it."""
    import torch

    batch, past = to_batch([seen], policy.cameras), policy.past.shown(0)
    return batch if past is None else batch.replace(images=torch.from_numpy(past)[None])


def _expected(
    model: WorldActionModel, batches: Sequence[Batch], chunks: Sequence[np.ndarray], *, steps: int = 3
) -> tuple[np.ndarray, ...]:
    """(V, T, H, W, 3) uint8 of each plan, by forward dynamics."""
    import torch

    found: list[np.ndarray] = []
    for first in range(0, len(batches), AT_ONCE):
        batch = concatenate(list(batches[first : first + AT_ONCE]))
        actions = torch.from_numpy(np.stack(chunks[first : first + AT_ONCE]).astype(np.float32))
        sample = model.sample(
            batch.replace(action=actions), given=(*CONTEXT, "action"), want=("future",), steps=steps, same_noise=True
        )
        assert sample.future is not None
        found += list(to_uint8(sample.future.float().numpy()))
    return tuple(found)


def _told(observation: Observation, episode: Episode) -> Observation:
    return dataclasses.replace(observation, instruction=episode.instruction)


def _pictures(observation: Observation, cameras: Sequence[str]) -> np.ndarray:
    return np.stack([observation.images[camera] for camera in cameras])
