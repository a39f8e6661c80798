"""Interpolated commands do together what their action says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.control.control_fakes import space
from wam.contracts import WamError
from wam.control.interpolation import Interpolator

actions = arrays.arrays(np.float64, 4, elements=st.floats(-1, 1))


@given(action=actions, before=actions, rate=st.sampled_from([20, 30, 40, 199, 200]))
def test_displacements_are_conserved_and_the_gripper_is_no_displacement(
    action: np.ndarray, before: np.ndarray, rate: float
) -> None:
    commands = Interpolator(space("delta"), rate_hz=rate).commands(action, before)
    np.testing.assert_allclose(commands[:, :3].sum(0), action[:3], atol=1e-12)
    assert (commands[:, 3] == action[3]).all()


@given(action=actions, before=actions)
def test_absolute_targets_are_approached_evenly_and_reached(action: np.ndarray, before: np.ndarray) -> None:
    commands = Interpolator(space("absolute"), rate_hz=200).commands(action, before)
    assert len(commands) == 10
    np.testing.assert_array_equal(commands[-1], action)
    steps = np.diff(commands, axis=0, prepend=before[None])
    np.testing.assert_allclose(steps, np.tile((action - before) / 10, (10, 1)), atol=1e-12)


def test_held_targets_are_repeated() -> None:
    commands = Interpolator(space("absolute"), rate_hz=100, absolute="hold").commands(np.ones(4), np.zeros(4))
    np.testing.assert_array_equal(commands, np.ones((5, 4)))


def test_the_rate_is_a_whole_multiple_of_at_most_200_hertz() -> None:
    found = [Interpolator(space(rate_hz=hz)) for hz in (10, 30, 40, 150, 200)]
    assert [(one.parts, one.rate_hz) for one in found] == [(20, 200), (6, 180), (5, 200), (1, 150), (1, 200)]
    for rate in (10, 500):
        with pytest.raises(WamError, match="200 Hz"):
            Interpolator(space(rate_hz=20), rate_hz=rate)
    with pytest.raises(WamError, match="relative"):
        Interpolator(space("relative"))
