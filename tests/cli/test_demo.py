"""The demo's plan of its time."""

from __future__ import annotations

import pytest

from wam.cli.demo import REST, training_minutes


def test_training_fills_what_the_simulator_leaves() -> None:
    assert training_minutes(10.0, collected=2.0) == pytest.approx(8.0 - 2.0 * REST)
    assert training_minutes(10.0, collected=3.0) < training_minutes(10.0, collected=2.0)


def test_a_slow_simulator_leaves_a_minute() -> None:
    assert training_minutes(10.0, collected=20.0) == 1.0
