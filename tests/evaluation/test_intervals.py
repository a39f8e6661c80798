"""Intervals agree with known values and cover as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from wam.contracts import WamError
from wam.evaluation.intervals import bootstrap, mean_of_rates, mean_over_seeds, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 20), (1, 20), (13, 20), (20, 20), (50, 100)])
def test_wilson_is_scipys(k, n):
    ours, theirs = wilson(k, n), stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.low <= ours.value <= ours.high


def test_wilson_covers_the_truth_about_as_often_as_it_says():
    draws = np.random.default_rng(0).binomial(20, 0.85, 2000)
    covered = [wilson(int(k), 20).low <= 0.85 <= wilson(int(k), 20).high for k in draws]
    assert 0.92 < np.mean(covered) < 0.98


def test_the_mean_of_perfect_tasks_keeps_some_width_but_less_than_one_task():
    task = wilson(20, 20)
    mean = mean_of_rates([task] * 4)
    assert mean.value == 1
    assert task.low < mean.low < 1
    assert mean.n == 80


def test_the_mean_over_tasks_covers_the_truth():
    rng = np.random.default_rng(0)
    truth = np.array([0.95, 0.7, 0.85, 0.5])
    covered = []
    for _ in range(1000):
        mean = mean_of_rates([wilson(int(rng.binomial(20, p)), 20) for p in truth])
        covered.append(mean.low <= truth.mean() <= mean.high)
    assert 0.92 < np.mean(covered) < 0.985


def test_one_seed_says_nothing_about_spread():
    assert math.isnan(mean_over_seeds([0.9]).low)
    several = mean_over_seeds([0.8, 0.9, 1.0])
    assert several.high - several.value == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)


def test_the_bootstrap_is_near_the_normal_interval_and_repeats():
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap(values)
    assert found == bootstrap(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_impossible_counts_are_refused():
    with pytest.raises(WamError, match="successes"):
        wilson(3, 2)
