"""What curating an amount of video will take, from a timed sample of it: core-hours and gigabytes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wam.contracts import expected
from wam.data.curation.clips import curate_item
from wam.data.curation.config import CurateConfig
from wam.data.curation.records import Clip, Event, Finished, Opened, Rejection, Unit
from wam.data.curation.sources import find_items
from wam.data.curation.workers import Stage, WorkerPool
from wam.progress import duration


@dataclass(frozen=True, kw_only=True)
class CuratePlan:
    """seconds: of raw video, estimated unless `hours` were named. Rates are per second of raw video: core seconds,
    bytes and seconds of clips. low, high: of the core-hours, nine in ten redrawn samples lie between.

    Near-duplicates are not taken off. While the clips are packed, both they and the dataset lie on the disk.
    """

    sources: int
    sampled: int
    sampled_seconds: float
    seconds: float
    core_rate: float
    byte_rate: float
    kept_rate: float
    low: float
    high: float

    @property
    def core_hours(self) -> float:
        return self.core_rate * self.seconds / 3600

    @property
    def gigabytes(self) -> float:
        return self.byte_rate * self.seconds / 1e9

    def __str__(self) -> str:
        speed = 1 / self.core_rate if self.core_rate else float("inf")
        return "\n".join(
            (
                f"sources      {self.sources}, of which {self.sampled} were timed ({duration(self.sampled_seconds)} of video)",
                f"raw video    {self.seconds / 3600:.3g} hours",
                f"speed        {speed:.1f} times real time on each core",
                f"core-hours   {self.core_hours:.3g} (90% interval of the sample: {self.low:.3g} to {self.high:.3g})",
                f"clips        {self.kept_rate * self.seconds / 3600:.3g} hours, near-duplicates not taken off",
                f"gigabytes    {self.gigabytes:.3g}, twice that while packing",
            )
        )


def plan(
    roots: Sequence[Path | str],
    config: CurateConfig,
    *,
    hours: float | None = None,
    sample: int = 12,
    seconds: float = 60.0,
    seed: int = 0,
    stage: Stage = curate_item,
    progress: Callable[[int, int], None] | None = None,
) -> CuratePlan:
    """Curate up to `sample` randomly drawn sources for about `seconds` in one process, write nothing that stays.

    What counts is processor time, so a busy machine plans like an idle one.

    hours: of such video; without it, the sources' own length is estimated from their bytes. Raises WamError where no
    sampled source could be read.
    """
    if hours is not None and hours <= 0:
        raise expected("hours above 0", got=hours, do="say how much video there will be")
    items = find_items(roots).items
    chosen = np.random.default_rng(seed).permutation(len(items))[:sample].tolist()
    rows: list[tuple[float, float, int, float, int]] = []  # core seconds, raw seconds, bytes out, seconds out, bytes in
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, WorkerPool(config, Path(scratch), processes=1, stage=stage) as pool:
        for number, place in enumerate(chosen, start=1):
            item = items[place]
            rows.append((*_sums(list(pool.run([Unit(item=item)]))), item.size))
            if progress is not None:
                progress(number, len(chosen))
            if time.monotonic() - begun > seconds:
                break
    table = np.array(rows, np.float64).reshape(-1, 5)
    if not table[:, 1].sum():
        raise expected(
            "a readable video in the sample", got=f"none of {len(rows)}", do="give others, or run it as it is"
        )
    total = table.sum(0)
    raw = hours * 3600 if hours is not None else total[1] / total[4] * sum(item.size for item in items)
    rng = np.random.default_rng(seed)
    drawn = table[rng.integers(0, len(table), (1000, len(table)))].sum(1)
    drawn = drawn[drawn[:, 1] > 0]
    if hours is not None:
        spread = drawn[:, 0] / drawn[:, 1] * raw / 3600
    else:
        spread = drawn[:, 0] / drawn[:, 4] * sum(item.size for item in items) / 3600
    low, high = np.quantile(spread, [0.05, 0.95])
    return CuratePlan(
        sources=len(items),
        sampled=len(rows),
        sampled_seconds=float(total[1]),
        seconds=float(raw),
        core_rate=float(total[0] / total[1]),
        byte_rate=float(total[2] / total[1]),
        kept_rate=float(total[3] / total[1]),
        low=float(low),
        high=float(high),
    )


def _sums(events: Sequence[Event]) -> tuple[float, float, int, float]:
    """Core-seconds, seconds of raw video, bytes and seconds of clips."""
    used = sum(e.core_seconds for e in events if isinstance(e, Finished))
    header = max((e.seconds for e in events if isinstance(e, Opened)), default=0.0)
    reached = max((e.end for e in events if isinstance(e, Clip | Rejection) and e.end is not None), default=0.0)
    clips = [e for e in events if isinstance(e, Clip)]
    return used, max(header, reached), sum(c.file_bytes for c in clips), sum(c.seconds for c in clips)
