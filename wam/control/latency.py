"""How long chunks take, over a window of the last ones."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from wam.contracts import expected


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds at these percentiles, each one that was really measured; NaN where nothing was. n: how many."""

    p50: float
    p95: float
    p99: float
    max: float
    n: int


class LatencyTracker:
    """window: how many of the newest are kept. warm_up: how many of the first are left out: they compile and fill caches."""

    def __init__(self, window: int = 100, *, warm_up: int = 0) -> None:
        if window < 1 or warm_up < 0:
            raise expected("a window of 1 or more, warm_up of 0 or more", got=(window, warm_up), do="correct them")
        self._kept: deque[float] = deque(maxlen=window)
        self._to_skip = warm_up

    def add(self, seconds: float) -> None:
        if self._to_skip:
            self._to_skip -= 1
        else:
            self._kept.append(float(seconds))

    @property
    def summary(self) -> Latency:
        if not self._kept:
            return Latency(p50=math.nan, p95=math.nan, p99=math.nan, max=math.nan, n=0)
        values = np.array(self._kept)
        p50, p95, p99 = (float(x) for x in np.percentile(values, (50, 95, 99), method="higher"))
        return Latency(p50=p50, p95=p95, p99=p99, max=float(values.max()), n=len(values))

    def ticks(self, period: float) -> int:
        """d = ceil(latency / period) of the slowest in the window, 0 before anything was measured: a chunk that comes
        sooner than expected does no harm, one that comes later leaves the robot with nothing to do."""
        return in_ticks(max(self._kept), period) if self._kept else 0


def in_ticks(seconds: float, period: float) -> int:
    """The first tick at or after `seconds`; rounding does not make another of 0.1 / 0.025."""
    return math.ceil(seconds / period - 1e-6)
