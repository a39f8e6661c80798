"""Intervals around measured rates and means, because a figure without one says little.

Wilson: E. B. Wilson, 1927. Mean of independent rates: the "method of variance estimates recovery" (Zou and Donner,
2008), which, unlike a bootstrap, does not collapse to zero width when every start succeeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from wam.contracts import expected


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measured value and the ends of its confidence interval. n: how many observations stand behind it."""

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] n={self.n}"


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a success rate."""
    if n < 1 or not 0 <= successes <= n:
        raise expected("0 <= successes <= n and n >= 1", got=f"{successes} of {n}", do="count the trials again")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # at 0 or n successes the formula gives the end exactly, up to rounding
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(value=rate, low=low, high=high, n=n, confidence=confidence)


def mean_of_rates(rates: Sequence[Interval]) -> Interval:
    """The unweighted mean of independent rates (one per task), each with its own interval."""
    if not rates:
        raise expected("at least one rate", got="none", do="measure at least one task")
    m = len(rates)
    mean = sum(r.value for r in rates) / m
    below = math.sqrt(sum((r.value - r.low) ** 2 for r in rates)) / m
    above = math.sqrt(sum((r.high - r.value) ** 2 for r in rates)) / m
    return Interval(
        value=mean,
        low=max(0.0, mean - below),
        high=min(1.0, mean + above),
        n=sum(r.n for r in rates),
        confidence=rates[0].confidence,
    )


def mean_over_seeds(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean over training seeds. One seed says nothing about spread: NaN ends."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size:
        raise expected("a list of one value per seed", got=f"shape {array.shape}", do="give the values of the seeds")
    mean = float(array.mean())
    if array.size == 1:
        return Interval(value=mean, low=math.nan, high=math.nan, n=1, confidence=confidence)
    half = float(stats.t.ppf(0.5 + confidence / 2, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return Interval(value=mean, low=mean - half, high=mean + half, n=array.size, confidence=confidence)


def bootstrap(
    values: np.ndarray,
    *,
    statistic: Callable[[np.ndarray], float] = lambda v: float(np.mean(v)),
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap of any statistic over the first axis of `values` (windows, episodes)."""
    values = np.asarray(values)
    if values.ndim < 1 or not len(values):
        raise expected("at least one value", got=f"shape {values.shape}", do="measure at least one window")
    rng = np.random.default_rng(seed)
    draws = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(resamples)]
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(
        value=float(statistic(values)), low=float(low), high=float(high), n=len(values), confidence=confidence
    )
