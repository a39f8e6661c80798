"""Latency in percentiles that were really measured, and in ticks that are enough."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.control.latency import LatencyTracker, in_ticks


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300), st.integers(1, 100))
def test_percentiles_are_ordered_measurements_of_the_window(values: list[float], window: int) -> None:
    tracker = LatencyTracker(window)
    for value in values:
        tracker.add(value)
    kept, found = values[-window:], tracker.summary
    assert found.p50 <= found.p95 <= found.p99 <= found.max == max(kept)
    assert {found.p50, found.p95, found.p99} <= set(kept)
    assert found.n == len(kept)


@given(st.floats(0, 5), st.floats(0.001, 0.5))
def test_so_many_ticks_are_enough_and_one_less_is_not(seconds: float, period: float) -> None:
    ticks = in_ticks(seconds, period)
    assert ticks * period >= seconds - 1e-5 * period
    assert ticks == 0 or (ticks - 1) * period < seconds


def test_rounding_makes_no_tick() -> None:
    assert [in_ticks(ms / 1e3, 1 / 40) for ms in (0, 1, 25, 100, 101, 200)] == [0, 1, 1, 4, 5, 8]


def test_the_first_ones_warm_up_and_nothing_measured_is_no_number() -> None:
    tracker = LatencyTracker(10, warm_up=2)
    assert tracker.ticks(0.05) == 0
    assert math.isnan(tracker.summary.p99)
    for seconds in (9.0, 8.0, 0.11, 0.02):
        tracker.add(seconds)
    assert tracker.summary.max == 0.11
    assert tracker.ticks(0.05) == 3
    with pytest.raises(WamError, match="window"):
        LatencyTracker(0)
