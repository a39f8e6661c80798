"""How fast frames come: every decoder on one file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import WamError
from wam.data.decoders import open_reader
from wam.data.video import probe

BACKENDS = ("decord", "pyav", "torchcodec")


def rate(work: Callable[[], int], *, seconds: float = 1.0, rounds: int = 5) -> float:
    """Units of work a second: the best of some rounds, so that other programs on the machine count little."""
    best = 0.0
    for _ in range(rounds):
        begun, done = time.perf_counter(), 0
        while (spent := time.perf_counter() - begun) < seconds / rounds:
            done += work()
        best = max(best, done / spent)
    return best


def decoder_rates(path: Path | str, *, span: int = 9, seconds: float = 1.0) -> dict[str, dict[str, float] | str]:
    """backend -> frames a second for single frames, windows (three frames over `span`) and runs of 100; or why not."""
    info = probe(path)
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, float] | str] = {}
    for backend in BACKENDS:
        try:
            reader = open_reader(info, backend)
        except WamError as error:
            found[backend] = str(error)
            continue
        length = min(100, info.frames)

        def single(reader: Any = reader) -> int:
            return len(reader.frames(rng.integers(0, info.frames, 1)))

        def window(reader: Any = reader) -> int:
            start = rng.integers(0, max(1, info.frames - span))
            return len(reader.frames(np.minimum(start + np.linspace(0, span - 1, 3).astype(int), info.frames - 1)))

        def run(reader: Any = reader, length: int = length) -> int:
            return len(reader.frames(rng.integers(0, info.frames - length + 1) + np.arange(length)))

        works = {"single": single, "window": window, "run": run}
        found[backend] = {name: rate(work, seconds=seconds) for name, work in works.items()}
        reader.close()
    return found
