"""Does the plan's arithmetic hold? Against memory and throughput that others published, with the error of each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from wam.evaluation.bench.published import PUBLISHED, Published
from wam.evaluation.bench.timing import BenchResult, Target
from wam.training.cluster import memory, step_seconds
from wam.training.hardware import accelerator


def bench_plan(*, rows: Sequence[Published] = PUBLISHED) -> BenchResult:
    """median_error: over the systems, of each the median |planned - published| / published of its figures; memory_error and
    throughput_error: medians over all figures of a kind. Each figure stands in the detail with its source."""
    found = [one for row in rows for one in compare(row)]
    systems = {row.system: [one["error"] for one in found if one["system"] == row.system] for row in rows}
    by_system = {name: statistics.median(abs(error) for error in errors) for name, errors in systems.items()}
    kinds = {
        f"{kind}_error": statistics.median(abs(one["error"]) for one in found if one["kind"] == kind)
        for kind in ("memory", "throughput")
        if any(one["kind"] == kind for one in found)
    }
    worst = max(abs(one["error"]) for one in found)
    return BenchResult(
        name="plan",
        figures={
            "median_error": statistics.median(by_system.values()),
            **kinds,
            "worst_error": worst,
            "systems": float(len(by_system)),
        },
        detail={"systems": by_system, "figures": found},
        n=len(found),
        targets={"median_error": Target(value=0.30, at_least=False)},
    )


def compare(row: Published) -> list[dict[str, Any]]:
    """Each published figure of a row beside the planned one. error: planned over published, less one."""
    work, told = row.work(), {"system": row.system, "model": row.model, "count": row.count, "source": row.source}
    found = []
    if row.memory is not None:
        held = memory(work, row.strategy, count=row.count, windows=row.windows)
        found.append({**told, "kind": "memory", **_against(sum(held.values()) / 2**30, row.memory), "held": held})
    if row.windows_a_second is not None:
        seconds = step_seconds(
            work,
            accelerator(row.device),
            row.strategy,
            count=row.count,
            windows=row.windows,
            accumulate=row.accumulate,
        )
        planned = row.count * row.windows * row.accumulate / seconds
        found.append({**told, "kind": "throughput", **_against(planned, row.windows_a_second)})
    return found


def _against(planned: float, published: float) -> dict[str, float]:
    return {"planned": planned, "published": published, "error": planned / published - 1}
