"""Injected delays cost a policy something that depends on how its chunks are carried out, and the figures say what."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.evaluation.evaluation_fakes import SPACE, SquareEnvironment
from tests.training.conftest import SPACE as TOY_SPACE
from tests.training.conftest import toy_config, write_toy
from wam.contracts import ActionSpace, Observation, WamError
from wam.control.continuation import Continuation
from wam.evaluation import delay as module
from wam.evaluation.delay import DelayEpisode, DelayEvaluateConfig, evaluate, jerks, measure
from wam.evaluation.episode_log import EpisodeLog
from wam.evaluation.figures import Measured
from wam.training.config import TrainConfig
from wam.training.trainer import train

MIDDLE = "square/middle"


class Pushing:
    """Pushes to the middle at full speed: whatever else it is doing, that is right."""

    chunk = 8

    def __init__(self) -> None:
        self.continued = 0

    def reset(self, index: int | None = None) -> None: ...

    def act(self, observations: list[Observation]) -> np.ndarray:
        (one,) = observations
        assert one.state is not None
        return self.way(one.state.astype(float))[None]

    def continue_from(self, observations: list[Observation], left: list[Continuation | None]) -> np.ndarray:
        self.continued += left[0] is not None
        return self.act(observations)

    def way(self, place: np.ndarray) -> np.ndarray:
        chunk = np.zeros((self.chunk, 4))
        chunk[:, :2] = -place / np.linalg.norm(place)
        return chunk


class Homing(Pushing):
    """Goes to the middle and stops there, now fast, now slowly, so its chunk means nothing after another one's beginning; it
    may be told what it will have done by the time that the chunk comes."""

    def way(self, place: np.ndarray, settled: np.ndarray | None = None) -> np.ndarray:
        self.plans = getattr(self, "plans", 0) + 1
        speed = 1.0 if self.plans % 2 else 0.3
        chunk = np.zeros((self.chunk, 4))
        for tick, action in enumerate(chunk):
            action[:2] = np.clip(-place / 0.1, -speed, speed)
            if settled is not None and tick < len(settled):
                action[:] = settled[tick]
            place = place + 0.1 * action[:2]
        return chunk

    def continue_from(self, observations: list[Observation], left: list[Continuation | None]) -> np.ndarray:
        (one,), (what,) = observations, left
        assert one.state is not None
        assert what is not None
        return self.way(one.state.astype(float), what.actions[: what.delay])[None]


def config(**changes: Any) -> DelayEvaluateConfig:
    return DelayEvaluateConfig(**{"environments": [MIDDLE], "starts": 3, "execute": 4, "max_steps": 20, **changes})


def measured(policy: Any, log: EpisodeLog[DelayEpisode] | None = None, **changes: Any) -> Measured:
    log = log or EpisodeLog(None, identity={}, kind=DelayEpisode)
    return measure(policy, config(**changes), log=log, make=square, told={MIDDLE: "go"})


def square(name: str, max_steps: int) -> Any:
    return SquareEnvironment(name)


def test_every_executor_meets_every_delay_from_the_same_starts() -> None:
    log: EpisodeLog[DelayEpisode] = EpisodeLog(None, identity={}, kind=DelayEpisode)
    policy = Pushing()
    found = measured(policy, log).values
    assert len(log.episodes) == 3 * 3 * 3
    assert {episode.instruction for episode in log.episodes.values()} == {"go"}
    assert policy.continued > 0
    for name in ("synchronous", "naive", "rtc_guided"):
        assert found[f"success_{name}_0ms"] == 1
        assert found[f"held_{name}_0ms"] == 0
        assert 0 < found[f"held_{name}_200ms"] < 1  # two ticks before the first chunk comes


def test_delay_costs_the_synchronous_robot_time() -> None:
    log: EpisodeLog[DelayEpisode] = EpisodeLog(None, identity={}, kind=DelayEpisode)
    measured(Pushing(), log, delays_ms=[0.0, 300.0], execute=2)
    for start in range(3):
        plain, waiting, going_on = (
            log.episodes[MIDDLE, start, variant].steps
            for variant in ("synchronous-0ms", "synchronous-300ms", "naive-300ms")
        )
        assert waiting > going_on > plain


def test_going_over_to_a_plan_made_for_another_place_costs_success_and_knowing_what_is_settled_saves_it() -> None:
    found = measured(Homing(), delays_ms=[0.0, 300.0])
    assert found.values["success_synchronous_0ms"] == 1
    assert found.values["naive_lost_points"] > 0
    assert found.values["rtc_loss_share"] == 0
    assert found.passed
    blend = measured(
        Homing(), delays_ms=[0.0, 300.0], executors=["synchronous", "naive", "rtc-blend"], judged="rtc-blend"
    )
    lost = blend.values
    assert lost["rtc_loss_share"] == pytest.approx(lost["rtc_lost_points"] / lost["naive_lost_points"])
    assert lost["rtc_loss_share"] > 1 / 3
    assert not blend.passed  # mixing does not make a plan for the right place


def test_where_nothing_is_lost_nothing_is_judged() -> None:
    found = measured(Pushing(), delays_ms=[0.0, 100.0])
    assert "rtc_loss_share" not in found.values
    assert "nothing to save" in found.unmeasured[0]


def test_a_chunk_too_short_for_a_delay_is_said() -> None:
    found = measured(Homing(), delays_ms=[0.0, 500.0])
    assert any("8 actions at 10 Hz bridge at most 400 ms" in reason for reason in found.unmeasured)
    assert found.values["success_naive_500ms"] <= found.values["success_naive_0ms"]


def test_what_is_on_record_is_not_driven_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def log() -> EpisodeLog[DelayEpisode]:
        return EpisodeLog(tmp_path / "episodes.jsonl", identity={"a": 1}, kind=DelayEpisode)

    before = measured(Homing(), log())
    monkeypatch.setattr(module, "drive", lambda *args, **kwargs: pytest.fail("driven again"))
    assert measured(Homing(), log()).values == before.values


def test_jerk_is_the_third_difference_and_seams_are_where_plans_change() -> None:
    commands = np.zeros((8, 4))
    commands[4:, 0] = 1.0  # a step of velocity between ticks 3 and 4
    commands[:, 3] = np.arange(8) % 2  # the gripper does not count
    plans = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert jerks(commands, plans, SPACE) == (1, 1.0, 2.0)
    assert jerks(commands, np.zeros(8), SPACE) == (0, 0.0, 2.0)
    places = ActionSpace(**{**SPACE.to_dict(), "kind": "absolute"})
    assert jerks(np.cumsum(commands, axis=0), plans, places)[0:2] == (1, 1.0)
    assert jerks(commands[:1], plans[:1], SPACE) == (0, 0.0, 0.0)


def test_settings_that_compare_nothing_are_refused() -> None:
    for changes, word in (
        ({"environments": []}, "at least one environment"),
        ({"executors": ["synchronous", "rtc-guided"]}, "naive"),
        ({"executors": ["synchronous", "naive", "hope"]}, "executors among"),
        ({"delays_ms": [100.0]}, "keep 0"),
        ({"judged": "rtc-prefix"}, "what is compared"),
    ):
        with pytest.raises(WamError, match=word):
            config(**changes).validate()


def test_a_trained_run_is_measured_and_its_episodes_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny model of the training tests, in a world that no action changes."""
    write_toy(tmp_path / "data")
    train(toy_config(tmp_path / "data", tmp_path / "run", steps=2))

    class Still(SquareEnvironment):
        def observe(self) -> Observation:
            picture = np.zeros((16, 16, 3), np.uint8)
            return Observation(images={"a": picture, "b": picture}, state=np.zeros(2, np.float32))

        def step(self, action: np.ndarray, render: bool = True) -> Any:
            return SimpleNamespace(observation=None, success=False, reward=0.0, done=False)

    def seen_as_in(trained: TrainConfig) -> Any:
        assert trained.model.image_size == 16
        return lambda name, max_steps: Still(name, action_space=TOY_SPACE)

    monkeypatch.setattr(module, "seen_as_in", seen_as_in)
    monkeypatch.setattr(module, "sentences_for", lambda names, held_out: {name: "go" for name in names})
    options = config(starts=1, max_steps=12, executors=["synchronous", "naive", "rtc-guided", "rtc-prefix"], threads=0)
    found = evaluate(tmp_path / "run", options)
    assert found.values["success_rtc_prefix_200ms"] == 0
    lines = (tmp_path / "run" / "evaluation" / "delay" / "episodes.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 4 * 3
