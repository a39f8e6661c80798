"""The benchmarks by name, and `run_bench`: run one, write its summary, say what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wam.contracts import expected
from wam.evaluation.bench.backbone import bench_backbone, bench_parity
from wam.evaluation.bench.curate import bench_curate
from wam.evaluation.bench.fuzz_guard import bench_fuzz_guard
from wam.evaluation.bench.gpu import bench_gpu
from wam.evaluation.bench.latency import bench_latency
from wam.evaluation.bench.loader import bench_loader
from wam.evaluation.bench.occupancy import bench_occupancy
from wam.evaluation.bench.plan import bench_plan
from wam.evaluation.bench.ranks import bench_ranks
from wam.evaluation.bench.sampling import bench_cache, bench_conditionals, bench_rollout
from wam.evaluation.bench.step import bench_step
from wam.evaluation.bench.timing import BenchResult
from wam.evaluation.summary import write_summary


def bench_server(**options: Any) -> BenchResult:
    """See `wam.evaluation.bench.server`, which needs the packages of the extra `serve`."""
    from wam.evaluation.bench.server import bench_server as run

    return run(**options)


def bench_fuzz_server(**options: Any) -> BenchResult:
    """See `wam.evaluation.bench.fuzz_server`, which needs the packages of the extra `serve`."""
    from wam.evaluation.bench.fuzz_server import bench_fuzz_server as run

    return run(**options)


BENCHES: dict[str, Callable[..., BenchResult]] = {
    "conditionals": bench_conditionals,
    "cache": bench_cache,
    "rollout": bench_rollout,
    "step": bench_step,
    "occupancy": bench_occupancy,
    "loader": bench_loader,
    "curate": bench_curate,
    "fuzz-guard": bench_fuzz_guard,
    "server": bench_server,
    "fuzz-server": bench_fuzz_server,
    "latency": bench_latency,
    "parity": bench_parity,
    "backbone": bench_backbone,
    "ranks": bench_ranks,
    "plan": bench_plan,
    "gpu": bench_gpu,
}


def run_bench(
    name: str,
    json_path: str | Path | None = None,
    *,
    others: Mapping[str, Callable[..., BenchResult]] | None = None,
    **options: Any,
) -> BenchResult:
    """Run the named benchmark; with `json_path`, write its summary. `options` are those of its function. others: benchmarks
    of rooms above this one, by name.

    Raises WamError for an unknown name.
    """
    known = {**BENCHES, **(others or {})}
    if name not in known:
        raise expected(f"a benchmark among {', '.join(known)}", got=repr(name), do="name one of them")
    result = known[name](**options)
    if json_path is not None:
        write_summary(
            json_path,
            result.figures,
            n=result.n,
            seeds=result.seeds,
            extra={
                "bench": name,
                "threads": torch.get_num_threads(),
                "targets": {figure: asdict(target) for figure, target in result.targets.items()},
                "missed": result.missed,
                "detail": result.detail,
            },
        )
    return result


def describe(result: BenchResult) -> str:
    """A line per figure, with its target and whether it is reached."""
    lines = [f"{result.name}: n = {result.n}, {torch.get_num_threads()} thread(s)"]
    for figure, value in result.figures.items():
        target = result.targets.get(figure)
        verdict = "" if target is None else f"   target {target}: {'reached' if target.holds(value) else 'MISSED'}"
        lines.append(f"  {figure} {value:.3g}{verdict}")
    return "\n".join(lines)
