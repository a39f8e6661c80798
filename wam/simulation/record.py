"""One episode, from a start to arrays: what an expert or play did, and what was seen on the way."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from wam.contracts import Observation, expected
from wam.simulation.environment import Environment
from wam.simulation.instructions import PLAY, sentences
from wam.simulation.play import Play
from wam.simulation.recovery import Disturbance, RecoveryNoise

#: Starts below this seed are never recorded, so that evaluation may use them as unseen ones.
FIRST_SEED = 1_000_000
_WANDER = (0, 40)  # steps of play before a play episode begins
_ASTRAY = (6, 30)  # and before a demonstration that begins astray


@dataclass(frozen=True, kw_only=True)
class Job:
    """An episode to make: which environment, play or expert, and its number among those."""

    environment: str
    play: bool
    index: int

    def start(self, seed: int, attempt: int) -> int:
        """The seed of the episode's start: the same for this number of every task. Where tasks share a scene, only the sentence
        then tells what to do; starts of their own would let a model learn by heart which scene belongs to which task."""
        return int(np.random.default_rng([seed, int(self.play), self.index, attempt]).integers(FIRST_SEED, 2**31))

    def rng(self, seed: int, attempt: int) -> np.random.Generator:
        """Chance that depends on the job alone, not on which process takes it or what came before."""
        return np.random.default_rng([seed, zlib.crc32(self.environment.encode()), int(self.play), self.index, attempt])


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """images: camera -> (T, H, W, 3) uint8; columns: name -> (T, ...); task: the sentence; extra: scalars; depth: camera ->
    (T, H, W) metres, if the environment renders it."""

    images: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    task: str
    extra: dict[str, bool | int | str]
    depth: dict[str, np.ndarray]


@dataclass
class _Tape:
    """What was seen before each action, the action, and what it brought."""

    observations: list[Observation] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)

    def act(self, environment: Environment, observation: Observation, action: np.ndarray) -> Observation:
        self.observations.append(observation)
        self.actions.append(action)
        self.states.append(environment.get_state())
        result = environment.step(action)
        self.rewards.append(result.reward)
        self.successes.append(result.success)
        assert result.observation is not None
        return result.observation

    def recorded(self, environment: Environment, *, task: str, play: bool, seed: int, attempt: int) -> Recorded:
        return Recorded(
            images={name: np.stack([o.images[name] for o in self.observations]) for name in environment.cameras},
            columns={
                "observation.state": np.stack([o.state for o in self.observations if o.state is not None]),
                "action": np.stack(self.actions),
                "sim.state": np.stack(self.states),
                "next.reward": np.array(self.rewards, np.float32),
                "next.success": np.array(self.successes),
            },
            task=task,
            extra={
                "play": play,
                "success": any(self.successes),
                "seed": seed,
                "attempt": attempt,
                "environment": environment.name,
            },
            depth={
                name: np.stack([o.depth[name] for o in self.observations if o.depth is not None])
                for name in environment.cameras
                if self.observations[0].depth is not None
            },
        )


def record_expert(
    environment: Environment,
    job: Job,
    *,
    seed: int,
    noise: RecoveryNoise,
    attempts: int,
    settle_steps: int,
    astray: float = 0.0,
) -> Recorded:
    """An episode in which the disturbed expert succeeds, and `settle_steps` steps beyond. astray: the share of episodes that
    begin where unrecorded play has left the hand, so that the way from anywhere is shown.

    Raises WamError if it fails `attempts` times, or if there is no expert.
    """
    for attempt in range(attempts):
        rng, start = job.rng(seed, attempt), job.start(seed, attempt)
        observation = environment.reset(start)
        strayed = int(rng.integers(*_ASTRAY, endpoint=True)) if astray and rng.random() < astray else 0
        if strayed:
            stray = Play(environment, rng, expert_share=0.0)
            if any(environment.step(stray.action(), render=False).success for _ in range(strayed)):
                continue  # nothing is left to show
            observation = environment.observe()
        disturbance, tape, left = Disturbance(noise, environment.action_space, rng), _Tape(), settle_steps
        for _ in range(environment.max_steps - strayed):
            succeeded = bool(tape.successes) and any(tape.successes)
            if succeeded and left == 0:
                break
            left -= succeeded
            observation = tape.act(environment, observation, disturbance.applied(environment.expert_action()))
        if any(tape.successes):
            task = str(rng.choice(sentences(job.environment)[0]))
            return tape.recorded(environment, task=task, play=False, seed=start, attempt=attempt)
    raise expected(
        f"the expert of {job.environment} to succeed within {attempts} attempts (episode {job.index})",
        got=f"{attempts} failures",
        do="raise `attempts`, lower `noise.level`, or leave the task out; episodes written so far are kept",
    )


def record_play(environment: Environment, job: Job, *, seed: int, steps: int) -> Recorded:
    """`steps` steps of play from a start that is itself the end of some unrecorded play."""
    if steps > environment.max_steps:
        raise expected(
            f"at most {environment.max_steps} steps of {job.environment}", got=steps, do="lower `play_steps`"
        )
    rng, start = job.rng(seed, 0), job.start(seed, 0)
    environment.reset(start)
    play, tape = Play(environment, rng), _Tape()
    for _ in range(min(int(rng.integers(*_WANDER, endpoint=True)), environment.max_steps - steps)):
        environment.step(play.action(), render=False)
    observation = environment.observe()
    for _ in range(steps):
        observation = tape.act(environment, observation, play.action())
    return tape.recorded(environment, task=PLAY, play=True, seed=start, attempt=0)
