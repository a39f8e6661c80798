"""Sizes of actions and states come from the data, and a state with velocities is split by its names."""

from __future__ import annotations

import pytest

from wam.model.config import ModelConfig
from wam.training.data import flat_names, split_state


def test_a_state_is_split_by_its_names() -> None:
    model = ModelConfig()
    split_state(model, ["x", "vel_x", "gripper", "joint_0.velocity"])
    assert model.streams["state"].columns == [0, 2]
    assert model.streams["velocity"].columns == [1, 3]


@pytest.mark.parametrize("names", [["x", "y"], [], ["velocity_x", "velocity_y"]])
def test_a_state_that_cannot_be_split_stays_whole(names: list[str]) -> None:
    model = ModelConfig()
    split_state(model, names)
    assert model.streams["state"].columns == []
    assert "velocity" not in model.streams


def test_columns_named_by_the_config_stay() -> None:
    model = ModelConfig()
    model.streams["velocity"].columns = [0]
    split_state(model, ["x", "velocity_x"])
    assert model.streams["velocity"].columns == [0]
    assert model.streams["state"].columns == []


def test_a_model_without_a_velocity_stream_reads_all_of_the_state() -> None:
    model = ModelConfig()
    del model.streams["velocity"]
    split_state(model, ["x", "velocity_x"])
    assert model.streams["state"].columns == []


def test_names_may_be_grouped() -> None:
    assert flat_names({"arm": ["x", "y"], "hand": {"left": ["grip"]}}) == ["x", "y", "grip"]
    assert flat_names(None) == []
