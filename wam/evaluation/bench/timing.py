"""Timing in pairs: what is compared runs in turns, so that a busy machine slows both and the ratio stays."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a figure has to reach: at least or at most `value`."""

    value: float
    at_least: bool = True

    def holds(self, figure: float) -> bool:
        return figure >= self.value if self.at_least else figure <= self.value

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """figures: what counts. detail: how it came about, as plain values. n: repeats. targets: by figure."""

    name: str
    figures: dict[str, float]
    detail: dict[str, Any]
    n: int
    targets: dict[str, Target] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)

    @property
    def missed(self) -> list[str]:
        return [name for name, target in self.targets.items() if not target.holds(self.figures[name])]


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds of each contestant in each round, on the clock and (on a CPU) of processor time."""

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.wall[name])

    def ratio(self, slow: str, fast: str) -> float:
        """The median over rounds of slow over fast."""
        return statistics.median(ratios(self.wall[slow], self.wall[fast]))

    def compare(self, slow: str, fast: str) -> dict[str, Any]:
        """The ratio with its spread, and the same in processor time, which other programs disturb less."""
        found = ratios(self.wall[slow], self.wall[fast])
        quartiles = statistics.quantiles(found, n=4) if len(found) > 1 else [found[0]] * 3
        return {
            "ratio": statistics.median(found),
            "quartiles": [quartiles[0], quartiles[2]],
            "cpu_ratio": statistics.median(ratios(self.cpu[slow], self.cpu[fast])),
            f"{slow}_ms": 1e3 * self.median(slow),
            f"{fast}_ms": 1e3 * self.median(fast),
        }


def ratios(slow: list[float], fast: list[float]) -> list[float]:
    return [a / b for a, b in zip(slow, fast, strict=True)]


def time_in_turns(
    contestants: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    warmup: int = 2,
    device: torch.device | str = "cpu",
) -> Timings:
    """Run each contestant once per round, in an order that turns around every round."""
    names = list(contestants)
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    for turn in range(-warmup, repeats):
        gc.collect()
        gc.disable()
        try:
            for name in names if turn % 2 else reversed(names):
                wait()
                begun, used = time.perf_counter(), time.process_time()
                contestants[name]()
                wait()
                if turn >= 0:
                    wall[name].append(time.perf_counter() - begun)
                    cpu[name].append(max(time.process_time() - used, 1e-9))
        finally:
            if collecting:
                gc.enable()
    return Timings(wall=wall, cpu=cpu)


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
