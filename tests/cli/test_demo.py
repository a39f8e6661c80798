"""The demo's plan of its time."""

from __future__ import annotations

import pytest

from wam.cli.demo import LEAST, REST, training_minutes


def test_training_fills_what_the_simulator_leaves() -> None:
    assert training_minutes(12.0, collected=2.0) == pytest.approx(10.0 - 2.0 * REST)
    assert training_minutes(12.0, collected=2.1) < training_minutes(12.0, collected=2.0)


def test_a_slow_simulator_leaves_the_least() -> None:
    assert training_minutes(10.0, collected=20.0) == LEAST
