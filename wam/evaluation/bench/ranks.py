"""How much faster two processes train than one: the real trainer, launched as a user would, one thread each."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from wam.contracts import expected
from wam.evaluation.bench.timing import BenchResult, Target

WORKER = "wam.evaluation.bench.ranks_worker"


def bench_ranks(
    *, steps: int = 24, warmup: int = 5, repeats: int = 5, batch_size: int = 64, precision: str = "bf16"
) -> BenchResult:
    """speedup: samples a second of two ranks over one, the median over launches in turns. batch_size: windows of each rank,
    so that two ranks take steps of twice as many: what does not shrink with a step's share (starting the operations, the
    optimizer, summing gradients) is paid by both. Each launch's figure is its median step after the warm-up. Needs two
    free cores."""
    ratios: list[float] = []
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        told = {"steps": steps, "warmup": warmup, "batch_size": batch_size, "precision": precision}
        for turn in range(repeats):
            for ranks in (1, 2) if turn % 2 else (2, 1):
                step = {**told, "batch_size": batch_size * ranks}
                seconds[ranks].append(_launch(Path(folder), f"{turn}-{ranks}", ranks, step))
            ratios.append(2 * seconds[1][-1] / seconds[2][-1])
    return BenchResult(
        name="ranks",
        figures={
            "speedup": statistics.median(ratios),
            "one_samples_per_second": batch_size / statistics.median(seconds[1]),
            "two_samples_per_second": 2 * batch_size / statistics.median(seconds[2]),
        },
        detail={**told, "threads_a_rank": 1, "ratios": ratios, "step_seconds": {str(k): v for k, v in seconds.items()}},
        n=repeats,
        targets={"speedup": Target(value=1.6)},
    )


def _launch(folder: Path, name: str, ranks: int, told: dict[str, Any]) -> float:
    """The median step's seconds of one run."""
    settings, result = folder / f"{name}.json", folder / f"{name}-seconds.json"
    settings.write_text(json.dumps({**told, "output": str(folder / name), "seconds": str(result)}))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    ran = subprocess.run(
        [sys.executable, *launcher, "-m", WORKER, str(settings)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if ran.returncode or not result.is_file():
        lines = ran.stderr.strip().splitlines() or ["nothing"]
        why = next(
            (line for line in lines if "Error" in line or "No module" in line), lines[-1]
        )  # a rank's own comes first
        raise expected(f"{ranks} rank(s) of {WORKER} to finish", got=why.strip(), do="run it by hand")
    found = json.loads(result.read_text())
    if found["ranks"] != ranks:
        raise expected(f"{ranks} ranks in one group", got=found["ranks"], do="check the launcher")
    return statistics.median(found["seconds"])
