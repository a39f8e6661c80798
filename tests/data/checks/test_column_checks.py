"""Signals that look like faults and are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam.data.checks import angles, columns, gripper, lag, rate


def test_a_switch_between_minus_three_and_three_is_no_wrapped_angle() -> None:
    switch = np.where(np.arange(200) // 40 % 2, 3.0, -3.0)[:, None]
    assert angles.check_wraps("action", {0: switch}, ("hand",)) == []


def test_pixels_that_jump_are_no_angles() -> None:
    rng = np.random.default_rng(0)
    assert angles.check_wraps("action", {0: rng.uniform(0, 512, (300, 2))}, ("x", "y")) == []


def test_degrees_are_judged_only_where_a_name_says_so() -> None:
    heading = (np.linspace(100, 300, 200)[:, None] + 180) % 360 - 180
    assert angles.check_wraps("observation.state", {0: heading}, ("position",)) == []
    assert len(angles.check_wraps("observation.state", {0: heading}, ("yaw",))) == 1


def test_play_that_holds_its_action_irregularly_has_no_lower_rate() -> None:
    rng = np.random.default_rng(1)
    action = np.repeat(rng.normal(size=(40, 3)), rng.integers(4, 11, 40), axis=0)
    assert rate.check_held_actions({0: action}) == []


@pytest.mark.parametrize("shift", [-2, 0, 1, 3])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_lag_between_action_and_motion_is_recovered(shift: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    action = rng.normal(size=(120, 3))
    state = np.cumsum(np.concatenate([np.zeros((1, 3)), action]), axis=0)[:120]
    relation = lag.relate({0: state}, {0: np.roll(action, -shift, axis=0)}, fps=10)
    assert relation is not None
    assert (relation.kind, relation.lag) == ("delta", shift)


def test_absolute_targets_are_told_from_differences() -> None:
    rng = np.random.default_rng(2)
    state = np.cumsum(rng.normal(size=(150, 4)), axis=0)
    target = np.concatenate([state[1:], state[-1:]])
    relation = lag.relate({0: state}, {0: target}, fps=10)
    assert relation is not None
    assert (relation.kind, relation.lag) == ("absolute", 0)
    copied = lag.relate({0: state}, {0: state.copy()}, fps=10)
    assert copied is not None
    assert lag.check_action_lag(copied, fps=10)[0].severity == "error"  # the action is the present state


def test_unrelated_actions_and_states_have_no_relation() -> None:
    rng = np.random.default_rng(3)
    assert lag.relate({0: rng.normal(size=(200, 3))}, {0: rng.normal(size=(200, 3))}, fps=10) is None


def test_a_gripper_command_may_be_a_place_or_an_effort() -> None:
    rng = np.random.default_rng(4)
    states, places, efforts = {}, {}, {}
    for episode in range(4):
        target = np.repeat(rng.integers(0, 2, 8), 10).astype(float)
        opening = np.zeros(80)
        for t in range(79):
            opening[t + 1] = opening[t] + np.clip(target[t] - opening[t], -0.25, 0.25)
        states[episode], places[episode] = opening[:, None], target[:, None]
        efforts[episode] = -(2 * target[:, None] - 1)
    for command, sign in ((places, 1), (efforts, -1)):
        found = gripper.responses(states, command, action_dim=0, state_dim=0, reach=3)
        assert found
        assert all(np.sign(v) == sign for v in found.values())


def test_few_small_outliers_are_no_spikes() -> None:
    values = np.random.default_rng(5).standard_t(4, size=(2000, 2))
    assert columns.check_spikes("action", {0: values}, ("a", "b")) == []
