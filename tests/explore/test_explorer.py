"""`wam.load`: starts from anywhere, the five conditionals, answers with the truth beside them, and one sentence where not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import wam
from tests.training.conftest import SPACE
from wam.contracts import Observation, WamError
from wam.evaluation.truth import Branches
from wam.explore import starts
from wam.explore.explorer import Explorer
from wam.explore.futures import thinned


class Square:
    """A simulator in which the mean of an action sequence is the brightness of everything after it."""

    def __init__(self) -> None:
        self.states: list[np.ndarray] = []

    def reset(self, seed: int) -> None: ...

    def set_state(self, state: np.ndarray) -> None:
        self.states.append(state)
        self.light, self.steps = 0.0, 0

    def step(self, action: np.ndarray, *, render: bool = True) -> Any:
        self.light += float(np.abs(action).sum())
        self.steps += 1
        seen = None
        if render:
            picture = np.full((32, 32, 3), min(255, int(20 * self.light)), np.uint8)
            seen = Observation(images={"a": picture, "b": picture})
        return type("Result", (), {"observation": seen})()


def with_simulator(start: starts.Start) -> tuple[starts.Start, Square]:
    square = Square()
    return dataclasses.replace(start, state=np.zeros(3), environment=lambda: square), square  # type: ignore[arg-type, return-value]


class TestStarts:
    def test_a_place_names_a_frame_that_training_never_saw(self, model: Explorer) -> None:
        first, last = model.start(0.0), model.start(1.0)
        assert first.title != last.title
        assert first.present.shape == (2, 16, 16, 3)
        windows = model.held_out()[0]
        assert {episode.index for episode in windows.episodes} < set(range(6))
        assert not any(episode.play for episode in windows.episodes)
        assert all(episode.play for episode in model.held_out(play=True)[0].episodes)

    def test_an_episode_and_a_frame_name_one(self, model: Explorer) -> None:
        start = model.start(episode=2, frame=5)
        assert start.title.endswith("episode 2, frame 5")
        np.testing.assert_array_equal(start.present, model.start(episode=2, frame=4).recorded([1])[:, 0])  # type: ignore[index]
        assert start.recorded([15]) is None  # the episode has 20 frames
        actions = start.actions(30)
        assert actions is not None
        np.testing.assert_array_equal(actions[14:], np.repeat(actions[14:15], 16, axis=0))

    def test_what_a_robot_sees_is_a_start_without_a_past_or_a_truth(self, model: Explorer) -> None:
        seen = {name: np.full((40, 40, 3), 50, np.uint8) for name in ("a", "b")}
        start = model.start(observation=Observation(images=seen, state=np.zeros(2, np.float32), instruction="go"))
        assert start.present.shape == (2, 16, 16, 3)
        found = model.imagine(start, seeds=2, steps=1)
        assert found.truth is None
        assert "nothing was recorded" in found._repr_html_()

    @pytest.mark.parametrize("wrong", [{"place": 2.0}, {"episode": 99}, {"episode": 0, "frame": 99}])
    def test_a_start_that_is_not_there_is_a_sentence(self, model: Explorer, wrong: dict[str, Any]) -> None:
        with pytest.raises(WamError, match="from 0 to"):
            model.start(**wrong)

    def test_data_that_has_gone_is_a_sentence(self, run: Any) -> None:
        with pytest.raises(WamError, match="data="):
            wam.load(run, data="no-such-folder").start()


class TestImagining:
    def test_seeds_differ_and_their_variance_is_known(self, model: Explorer) -> None:
        found = model.imagine(model.start(0.3), seeds=3, steps=2)
        assert found.names == ("seed 0", "seed 1", "seed 2")
        assert found.frames.shape == (3, 2, 2, 16, 16, 3)
        assert 0 <= found.frames.min() <= found.frames.max() <= 1
        np.testing.assert_allclose(found.variance, found.frames.var(0).mean(-1))
        again = model.imagine(model.start(0.3), seeds=[1], steps=2)
        np.testing.assert_array_equal(again.frames[0], found["seed 1"])

    def test_rows_of_one_seed_meet_the_same_noise(self, model: Explorer) -> None:
        start = model.start(0.3)
        chunk = start.actions(8)
        assert chunk is not None
        found = model.imagine(start, actions={"one": chunk, "same": chunk, "other": -chunk}, steps=2)
        np.testing.assert_allclose(found["one"], found["same"], atol=1e-6)
        assert np.abs(found["one"] - found["other"]).max() > 0

    def test_the_recorded_future_is_the_truth_of_what_is_imagined(self, model: Explorer) -> None:
        start = model.start(0.3)
        for found in (model.imagine(start, steps=1), model.forward_dynamics(start, steps=1)):
            assert found.truth is not None
            assert found.truth.source == "recorded"
            np.testing.assert_array_equal(found.truth.frames[0], start.recorded(model.model.config.future))
            assert found.errors is not None

    def test_other_actions_are_carried_out_in_the_simulator(self, model: Explorer) -> None:
        start, square = with_simulator(model.start(0.3))
        found = model.imagine(start, actions={"still": np.zeros((8, 2)), "push": np.ones((8, 2))}, steps=1)
        truth = found.truth
        assert truth is not None
        assert (truth.source, truth.each) == ("simulator", True)
        assert truth.frames[0].max() == 0
        assert (truth.frames[1, :, 0] == 160).all()  # four steps of two ones, at 20 each
        assert (truth.frames[1, :, 1] == 255).all()
        assert len(square.states) == 2

    def test_without_a_simulator_the_picture_says_that_nobody_knows(self, model: Explorer) -> None:
        found = model.imagine(model.start(0.3), actions="pushes", steps=1)
        assert found.truth is None
        assert "nobody knows" in found._repr_html_()
        assert found.names == ("still", "+x", "−x", "+y", "−y")

    def test_a_push_is_in_the_units_of_the_actions_and_within_their_limits(self, model: Explorer) -> None:
        start = model.start(0.3)
        np.testing.assert_allclose(model.push(start, x=0.5), np.repeat([[0.5, 0.0]], 8, axis=0))
        assert model.push(start, y=-7.0).min() == SPACE.low[1]
        with pytest.raises(WamError, match="x, y"):
            model.push(start, z=1.0)
        with pytest.raises(WamError, match="finite"):
            model.push(start, x=float("nan"))

    def test_chunks_go_on_from_what_was_imagined(self, model: Explorer) -> None:
        start = model.start(0.0)
        found = model.imagine(start, actions={"right": model.push(start, x=0.5, chunks=3)}, chunks=3, steps=1)
        assert found.offsets == (4, 8, 12, 16, 20, 24)
        assert found.frames.shape[2] == 6
        assert found.actions is not None
        assert found.actions.shape == (1, 24, 2)

    def test_sentences_are_rows(self, model: Explorer) -> None:
        found = model.imagine(model.start(0.3), instruction=["push it", "leave it"], seeds=2, steps=1)
        assert found.names[0] == "“push it”, seed 0"
        assert len(found) == 4
        assert found.instructions == ("push it", "leave it") * 2

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"actions": np.zeros((9, 2))}, "L from 1 to 8"),
            ({"actions": np.zeros((8, 3))}, "x, y"),
            ({"actions": np.full((8, 2), np.nan)}, "finite"),
            ({"actions": "shove"}, "recorded, policy or pushes"),
            ({"actions": {}}, "at least one"),
            ({"seeds": 0}, "at least one"),
            ({"chunks": 0}, "at least one chunk"),
            ({"voxels": True}, "voxels"),
        ],
    )
    def test_what_cannot_be_asked_is_a_sentence(self, model: Explorer, options: dict[str, Any], said: str) -> None:
        with pytest.raises(WamError, match=said):
            model.imagine(model.start(0.3), **options)

    def test_voxels_come_with_the_true_ones(self, voxel_model: Explorer) -> None:
        found = voxel_model.imagine(voxel_model.start(0.3), steps=1)
        assert found.voxels is not None
        assert found.truth is not None
        assert found.truth.filled is not None
        assert found.voxels.shape == found.truth.filled.shape == (1, 3, 8, 8, 4)
        assert found.truth.filled.any()


class TestActing:
    def test_policy_and_inverse_dynamics_stand_in_one_plot_beside_what_was_done(self, model: Explorer) -> None:
        start = model.start(0.3)
        found = model.policy(start, steps=1) | model.inverse_dynamics(start, steps=1)
        assert found.names == ("policy", "inverse dynamics")
        assert found.actions.shape == (2, 8, 2)
        np.testing.assert_array_equal(found.recorded, start.actions(8))
        assert np.abs(found["policy"]).max() <= 1
        assert found._repr_png_().startswith(b"\x89PNG")

    def test_joint_says_what_it_would_do_and_expects(self, model: Explorer) -> None:
        found = model.joint(model.start(0.3), seeds=2, steps=1)
        assert found.actions is not None
        assert found.actions.shape == (2, 8, 2)
        assert found.frames.shape[0] == 2


def test_the_model_says_what_it_is_and_whether_it_is_trained(model: Explorer) -> None:
    shown = model._repr_html_()
    assert "trained" in shown
    assert "x, y at 10 Hz" in shown
    assert "never trained" not in shown


def test_branches_are_brought_to_the_models_size(model: Explorer) -> None:
    start, _ = with_simulator(model.start(0.3))
    found = start.simulated(np.ones((1, 8, 2)), (4, 8))
    assert isinstance(found, Branches)
    assert found.frames.shape == (1, 2, 2, 16, 16, 3)


def test_thinning_keeps_the_last() -> None:
    assert thinned(3, 6) == [0, 1, 2]
    assert thinned(32, 6)[-1] == 31
    assert len(thinned(32, 6)) == 6
