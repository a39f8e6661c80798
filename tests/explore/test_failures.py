"""A recorded failure, carried out again: the same course, what was expected of each plan, and what came."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.conftest import SPACE
from wam.contracts import Observation, WamError
from wam.control.wam_policy import WamPolicy
from wam.evaluation.closed_loop import evaluate_policy
from wam.evaluation.episode_log import Episode, read_log
from wam.evaluation.rollout import LoopSettings
from wam.explore.explorer import Explorer
from wam.explore.failures import LOG, Failures, recorded_failures


class Table:
    """A square that its actions push, never to its goal; start 1 is solved at once."""

    name, instruction, max_steps = "toy/table", "push it", 24
    cameras, action_space = ("a", "b"), SPACE

    def __init__(self) -> None:
        self.closed = False

    def reset(self, seed: int) -> Observation:
        self.place, self.steps, self.seed = np.array([4.0 + seed, 8.0]), 0, seed
        return self.observe()

    def observe(self) -> Observation:
        picture = np.zeros((16, 16, 3), np.uint8)
        row, column = self.place.round().astype(int).clip(1, 14)
        picture[row - 1 : row + 2, column - 1 : column + 2] = 255
        state = self.place.astype(np.float32)
        return Observation(
            images={"a": picture, "b": picture[:, ::-1].copy()}, state=state, instruction=self.instruction
        )

    def step(self, action: np.ndarray, *, render: bool = True) -> Any:
        self.place = (self.place + action).clip(1, 14)
        self.steps += 1
        solved = self.seed == 1
        fields = {"success": solved, "done": solved or self.steps >= self.max_steps, "reward": 0.0}
        return type("Result", (), {"observation": self.observe() if render else None, **fields})()

    def close(self) -> None:
        self.closed = True


def failing() -> Failures:
    """One failure of the table, evaluated with six actions of each chunk."""
    episode = Episode(
        environment="toy/table", seed=0, variant="policy", instruction="push it", success=False, steps=24, reward=0.0
    )
    identity = {"execute": 6, "max_steps": 24, "steps": 1}
    return Failures(episodes=(episode,), identity=identity, make_environment=lambda name: Table(), why="")


@pytest.fixture
def evaluated(model: Explorer, tmp_path: Path) -> Path:
    """A run's folder with an evaluation of three starts, of which one was solved."""
    made = model.model.provenance["sha256"]["model.safetensors"]
    evaluate_policy(
        lambda: WamPolicy(model.model, steps=1),
        ["toy/table"],
        seeds=[0, 1, 2],
        settings=LoopSettings(execute=6, max_steps=24),
        resume=tmp_path / LOG,
        identity={"checkpoint": made, "conditional": "policy", "steps": 1},
        make_environment=lambda name: Table(),
        instructions={"toy/table": "push it"},
    )
    return tmp_path


def test_a_failure_carried_out_again_is_what_was_recorded(evaluated: Path, model: Explorer) -> None:
    found = dataclasses.replace(recorded_failures(evaluated, model), make_environment=lambda name: Table())
    assert [episode.seed for episode in found.episodes] == [0, 2]
    said: list[str] = []
    trace = found.retrace(0, model, say=said.append)
    assert "the same frames as recorded" in trace.words
    assert (trace.steps, trace.success) == (24, False)
    assert trace.plans == (0, 6, 12, 18)
    assert trace.frames.shape == (25, 2, 16, 16, 3)
    assert said


def test_what_came_stands_beside_what_was_expected_at_the_same_moments(model: Explorer) -> None:
    trace = failing().retrace(0, model)
    came = trace.came(1)
    assert came is not None
    np.testing.assert_array_equal(came[:, 0], trace.frames[6 + 4])
    np.testing.assert_array_equal(came[:, 1], trace.frames[6 + 8])
    assert trace.imagined[1].shape == came.shape
    assert trace.came(3) is None
    assert trace.errors[3] is None
    assert trace.errors[1] == pytest.approx(np.abs(came.astype(float) - trace.imagined[1]).mean() / 255)
    np.testing.assert_array_equal(trace.executed[6:12], np.clip(trace.chunks[1][:6], -1, 1).astype(np.float32))


def test_other_weights_and_other_frames_are_said(evaluated: Path, model: Explorer) -> None:
    found = dataclasses.replace(recorded_failures(evaluated, model), make_environment=lambda name: Table())
    other = dataclasses.replace(found, identity={**found.identity, "checkpoint": "another"})
    assert "other weights" in other.retrace(0, model).words
    key = found.episodes[0].key
    rollout = found.rollouts[key]
    changed = dataclasses.replace(rollout, frames=255 - rollout.frames)
    assert "not the frames" in dataclasses.replace(found, rollouts={key: changed}).retrace(0, model).words


def test_a_run_without_failures_says_why(tmp_path: Path, model: Explorer) -> None:
    found = recorded_failures(tmp_path, model)
    assert "wam eval" in found.why
    with pytest.raises(WamError, match="0 recorded failures"):
        found.retrace(0, model)


def test_a_log_is_read_while_it_is_written(evaluated: Path) -> None:
    log = evaluated / LOG
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"environment": "to')
    _, episodes, rollouts = read_log(log)
    assert len(episodes) == 3
    assert len(rollouts) == 1  # one failure an environment is kept
    assert log.read_bytes() == whole + b'{"environment": "to'
    log.write_bytes(b"{}\n")
    with pytest.raises(WamError, match="evaluate the run again"):
        read_log(log)
