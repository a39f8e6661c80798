"""Steering around a forbidden box: does it keep chunks out that the plain policy sends in, and what success does it cost?

A box is put in the way of each unsteered episode, which is then driven again, steered: how many chunks enter the box now,
of those that did? Beside it, the harder question: from each state in which a plain chunk entered, perhaps a finger's
breadth away and in full swing, does a steered one?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from wam.contracts import Batch, Observation, expected
from wam.control.keep_out import Box, LinearMotion, Side, keep_out
from wam.control.passing import dreamed_way, outer_side
from wam.control.wam_policy import WamPolicy, load_policy
from wam.evaluation.evaluate import FIRST_START, held_out_datasets, seen_as_in, sentences_for, spread_rows
from wam.evaluation.figures import Measured
from wam.evaluation.rollout import sentence_for
from wam.model.steering import Steering
from wam.progress import Progress
from wam.simulation.environment import Environment
from wam.training.config import TrainConfig
from wam.training.state import newest_checkpoint, trained_config

PLACE, VELOCITY = slice(0, 3), slice(4, 7)  # of the hand, in Meta-World's state


@dataclass(kw_only=True)
class GuidanceEvaluateConfig:
    """starts: unseen ones of each task. side: of the box, metres. at: where on the plain hand's way it stands, as a share of
    its length. passing: on the side that is `dreamed`, in so many hops (`wam.control.passing`), on the one that is `nearest` to
    each chunk, or always on one. execute, max_steps, policy_steps: as in `wam eval`. descent, reach: of
    `wam.model.steering.Steering`. output: empty: evaluation/guidance of the run."""

    environments: list[str] = field(default_factory=list)
    starts: int = 20
    first_start: int = FIRST_START
    side: float = 0.06
    at: float = 0.4
    margin: float = 0.015
    passing: Literal["dreamed", "nearest", "-x", "-y", "+x", "+y", "+z"] = "dreamed"
    execute: int = 6
    max_steps: int = 200
    policy_steps: int = 1
    descent: int = 24
    reach: float = 0.1
    hops: int = 4
    threads: int = 1
    seed: int = 0
    output: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A state in which a chunk was planned, what was seen there, and the way (execute + 1, 3) that the hand then went."""

    state: np.ndarray
    seen: Observation
    way: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Drive:
    plans: list[Plan]
    success: bool

    @property
    def way(self) -> np.ndarray:
        """(T, 3): where the hand was at every step."""
        return np.concatenate([self.plans[0].way[:1], *(plan.way[1:] for plan in self.plans)])


def evaluate(run: Path, config: GuidanceEvaluateConfig, *, say: Callable[[str], None] = print) -> Measured:
    """Measure the newest checkpoint of a run. Raises WamError if its actions are not the hand's displacements."""
    if config.threads:
        torch.set_num_threads(config.threads)
    trained = trained_config(run)
    policy = load_policy(newest_checkpoint(run), steps=config.policy_steps)
    motion, make = learned_motion(trained), seen_as_in(trained)
    told = sentences_for(config.environments, held_out=True)
    sent_in = still_in = late = done = 0
    won: list[tuple[bool, bool]] = []
    unmeasured = 0
    with Progress("episodes", len(config.environments) * config.starts) as bar:
        for name in config.environments:
            environment = make(name, max_steps=config.max_steps)
            for start in range(config.first_start, config.first_start + config.starts):
                sentence = sentence_for(told, name, start) or environment.instruction
                policy.steer = None
                plain = drive(environment, policy, start, sentence, config)
                box = box_on(plain.way, side=config.side, at=config.at, margin=config.margin)
                done += 1
                bar.update(done)
                if box is None:
                    unmeasured += 1
                    continue
                side = _side(box, policy, motion, plain.plans[0].seen, config)
                policy.steer = _steer(box, side, motion, config)
                entering = [plan for plan in plain.plans if enters(plan.way, box)]
                late += sum(not enters(again(environment, policy, plan, config), box) for plan in entering)
                steered = drive(environment, policy, start, sentence, config)
                sent_in += len(entering)
                still_in += sum(enters(plan.way, box) for plan in steered.plans)
                won.append((plain.success, steered.success))
            environment.close()
    found = Measured()
    if not won or not sent_in:
        raise expected(
            "episodes that enter a box put in their way",
            got=f"{len(won)} with room for one, {sent_in} chunks that enter",
            do="make the box larger or smaller, or choose other tasks",
        )
    before, after = (100 * float(np.mean(side)) for side in zip(*won, strict=True))
    found.add("kept_out", 1 - still_in / sent_in, sent_in)
    found.add("kept_out_late", late / sent_in, sent_in)
    found.add("success_lost_points", before - after, len(won))
    found.add("success_plain", before / 100, len(won))
    found.add("success_steered", after / 100, len(won))
    if unmeasured:
        found.unmeasured.append(f"{unmeasured} episodes whose way left no room for a box between start and end")
    return found


def learned_motion(trained: TrainConfig) -> LinearMotion:
    """From held-out play, whose actions move along every axis."""
    data = held_out_datasets(trained, play=True)[0]
    space, steps = data.store.info.action_space, data.spec.chunk
    if space is None or space.kind != "delta" or data.state_dim is None or data.state_dim < 7:
        raise expected(
            "actions that are displacements of the hand, and a state with its place and velocity",
            got=f"kind {space.kind if space else 'unknown'}, {data.state_dim} numbers",
            do="evaluate a run on Meta-World",
        )
    rows = [i for i in range(len(data)) if data.episode_of(i)[1] + steps < data.episode_of(i)[0].length]
    chosen = [rows[i] for i in spread_rows(len(rows), 600)]
    now = data.batch(chosen)
    after = [data.batch([row + step for row in chosen]).state for step in range(steps + 1)]
    states = torch.stack([state for state in after if state is not None], dim=1).numpy()
    assert now.action is not None
    return LinearMotion.fit(states[..., PLACE], now.action.numpy(), states[:, 0, VELOCITY])


def _side(
    box: Box, policy: WamPolicy, motion: LinearMotion, seen: Observation, config: GuidanceEvaluateConfig
) -> Side | None:
    if config.passing == "dreamed":
        way = dreamed_way(policy, motion, seen, place=PLACE, velocity=VELOCITY, hops=config.hops)
        return outer_side(way, box)
    return None if config.passing == "nearest" else config.passing


def _steer(
    box: Box, side: Side | None, motion: LinearMotion, config: GuidanceEvaluateConfig
) -> Callable[[Batch], Steering]:
    def steer(batch: Batch) -> Steering:
        assert batch.state is not None
        start, velocity = batch.state[:, PLACE], batch.state[:, VELOCITY]
        sides = None if side is None else [side] * batch.size
        cost = keep_out([box] * batch.size, motion, start, velocity, margin=config.margin, sides=sides)
        return Steering(cost=cost, steps=config.descent, reach=config.reach)

    return steer


def box_on(way: np.ndarray, *, side: float, at: float, margin: float) -> Box | None:
    """A cube at a share of the way's length (T, 3), or None if the start or the end would be in it."""
    lengths = np.concatenate([[0], np.linalg.norm(np.diff(way, axis=0), axis=1).cumsum()])
    middle = way[int(np.searchsorted(lengths, at * lengths[-1]))]
    half = np.full(3, side / 2)
    roomy = Box(low=_three(middle - half - 2 * margin), high=_three(middle + half + 2 * margin))
    if roomy.holds(way[[0, -1]]).any():
        return None
    return Box(low=_three(middle - half), high=_three(middle + half))


def _three(point: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in point)
    return x, y, z


def enters(way: np.ndarray, box: Box) -> bool:
    """Does a way (T, 3) that begins outside lead into the box?"""
    return bool(box.holds(way[1:]).any() and not box.holds(way[0]))


def drive(
    environment: Environment, policy: WamPolicy, start: int, sentence: str, config: GuidanceEvaluateConfig
) -> Drive:
    """One episode from an unseen start."""
    policy.reset()
    seen, plans, steps = environment.reset(start), [], 0
    while True:
        told = replace(seen, instruction=sentence)
        state = environment.get_state()
        way, success, over, seen = _carry_out(environment, policy.act([told])[0, : config.execute])
        plans.append(Plan(state=state, seen=told, way=way))
        steps += len(way) - 1
        if success or over or steps >= config.max_steps:
            return Drive(plans=plans, success=success)


def again(environment: Environment, policy: WamPolicy, plan: Plan, config: GuidanceEvaluateConfig) -> np.ndarray:
    """(execute + 1, 3): where the hand goes from the plan's state with a chunk planned anew."""
    environment.set_state(plan.state)
    return _carry_out(environment, policy.act([plan.seen])[0, : config.execute])[0]


def _carry_out(environment: Environment, actions: np.ndarray) -> tuple[np.ndarray, bool, bool, Observation]:
    """The hand's way (steps + 1, 3), whether the task is done, whether the episode is over, and what is seen at its end."""
    way = [environment.robot_state()[:3]]
    for i, action in enumerate(actions):
        result = environment.step(action, render=i == len(actions) - 1)
        way.append(environment.robot_state()[:3])
        if result.success or result.done:
            break
    return np.stack(way), bool(result.success), bool(result.done), result.observation or environment.observe()
