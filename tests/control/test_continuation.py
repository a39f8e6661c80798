"""What is left of a chunk binds the next one: fully where it is settled, less the farther ahead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.control_fakes import Continuing, Counting, seen
from wam.contracts import WamError
from wam.control.continuation import Continuation, blend, planned, soft_mask


@given(chunk=st.integers(1, 40), left=st.integers(1, 40), delay=st.integers(0, 40))
def test_the_mask_falls_from_one_where_settled_to_nothing_where_nothing_is_left(
    chunk: int, left: int, delay: int
) -> None:
    delay = min(delay, left)
    mask = soft_mask(chunk, delay=delay, left=left)
    assert mask.shape == (chunk,)
    assert (mask[:delay] == 1).all()
    assert (np.diff(mask) <= 0).all()
    assert (mask[left:] == 0).all()
    assert ((mask[delay:left] > 0) & (mask[delay:left] < 1)).all()


def test_the_mask_is_that_of_the_paper() -> None:
    """H 8, s 3, d 2: c falls in sixths of (H - s - d + 1) = 4."""
    c = np.array([3, 2, 1]) / 4
    np.testing.assert_allclose(soft_mask(8, delay=2, left=5), [1, 1, *(c * (np.exp(c) - 1) / (np.e - 1)), 0, 0, 0])


def test_a_blend_keeps_what_is_settled_and_leaves_what_is_free() -> None:
    chunk, left = np.ones((8, 2)), np.zeros((5, 2))
    mixed = blend(chunk, Continuation(actions=left, delay=2, method="blend"))
    np.testing.assert_array_equal(mixed[:2], 0)
    np.testing.assert_array_equal(mixed[5:], 1)
    assert (np.diff(mixed[:, 0]) >= 0).all()
    assert (chunk == 1).all()


def test_a_prefix_binds_the_settled_actions_alone() -> None:
    left = Continuation(actions=np.zeros((5, 2)), delay=2, method="prefix")
    np.testing.assert_array_equal(left.weights(8), [1, 1, 0, 0, 0, 0, 0, 0])


def test_any_policy_blends_and_only_one_that_can_continues() -> None:
    blended = Continuation(actions=np.zeros((5, 4)), delay=5, method="blend")
    assert (planned(Counting(), seen(7), blended)[:5] == 0).all()
    guided = Continuation(actions=np.zeros((5, 4)), delay=5, method="guided")
    policy = Continuing()
    planned(policy, seen(7), guided)
    assert policy.left == [guided]
    with pytest.raises(WamError, match="'blend'"):
        planned(Counting(), seen(7), guided)


def test_a_policy_of_the_wrong_shape_is_refused() -> None:
    policy = Counting()
    policy.act = lambda observations: np.zeros((8, 4))  # type: ignore[method-assign, assignment]
    with pytest.raises(WamError, match=r"\(1, 8, A\)"):
        planned(policy, seen(), None)


def test_a_delay_beyond_what_is_left_is_refused() -> None:
    with pytest.raises(WamError, match="delay"):
        Continuation(actions=np.zeros((3, 2)), delay=4)
    with pytest.raises(WamError, match="method"):
        Continuation(actions=np.zeros((3, 2)), delay=1, method="hope")  # type: ignore[arg-type]
