"""What an accelerator makes of the models: MFU and samples a second in training, latency of a chunk, peak memory.

wam bench gpu --json runs/bench/gpu.json        on an accelerator; elsewhere it says so, and its status is 77
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from wam.contracts import Batch, WamError, expected
from wam.evaluation.bench.gpu_models import SIZES, Size, make_batch, make_sized
from wam.evaluation.bench.timing import BenchResult, Target
from wam.model.graphs import PolicyGraph
from wam.model.joint import compile_blocks
from wam.model.wam import WorldActionModel
from wam.training.config import OptimizerConfig
from wam.training.count import backward, count_flops
from wam.training.hardware import ACCELERATORS
from wam.training.objective import joint_losses
from wam.training.optimizer import make_optimizers

STEPS = 4
"""Denoising steps of a chunk."""
WARM_UP = 3
"""Steps, and chunks, before those that are timed."""
COUNTED = 2
"""Windows whose arithmetic is counted: it is the same for every window."""
MODELS = tuple(f"{kind}-{size}" for kind in ("native", "wan") for size in SIZES)
LARGEST = "native-1b"


class NotMeasuredError(WamError):
    """There is nothing here to measure on. No figure is written."""


def bench_gpu(
    *,
    models: Sequence[str] = MODELS,
    train_steps: int = 10,
    chunks: int = 200,
    precision: str = "bf16",
    compiled: bool = True,
    peak: float = 0.0,
    device: torch.device | None = None,
) -> BenchResult:
    """mfu: operations of the model's forward and backward passes in a second of training, over the accelerator's peak in
    bf16; policy_ms: median time of an action chunk at batch 1, 4 steps on a context that is there, by the fastest of the
    ways tried (`detail` says which); joint_ms: with the future beside it. These of the native model of a billion parameters, or
    of the last native one of `models`; of each model by its name.

    Latents and text features are given (`data.latents`). compiled: also with the repeated layers compiled; the optimizer's
    step is in the time. peak: operations a second, for a device that `wam.training.hardware` does not know. What fails on
    the way is in `detail` under its name, and the figures are of what ran.
    """
    if device is None and not torch.cuda.is_available():
        raise NotMeasuredError("no accelerator is here, so nothing was measured: wam bench gpu needs one")
    device = device or torch.device("cuda")
    peak = peak or _peak(device)
    if unknown := set(models) - set(MODELS):
        raise expected(f"models among {', '.join(MODELS)}", got=sorted(unknown), do="name some of them")
    rows = {name: _measure(name, device, peak, train_steps, chunks, precision, compiled) for name in models}
    known = [name for name in rows if "mfu" in rows[name] and "policy_ms" in rows[name] and "joint_ms" in rows[name]]
    native = [name for name in known if name.startswith("native")] or known
    if not native:
        raise expected("a model to train and to sample on this device", got=rows, do="see what each failed on")
    chosen = LARGEST if LARGEST in native else native[-1]
    each = ("mfu", "samples_per_second", "policy_ms", "policy_p99_ms", "joint_ms", "joint_p99_ms", "peak_gib")
    return BenchResult(
        name="gpu",
        figures={
            **{figure: rows[chosen][figure] for figure in ("mfu", "policy_ms", "joint_ms")},
            **{f"{name}/{figure}": row[figure] for name, row in rows.items() for figure in each if figure in row},
        },
        detail={"of": chosen, "peak": peak, "precision": precision, "steps": STEPS, "device": _named(device), **rows},
        n=chunks,
        targets={
            "mfu": Target(value=0.45),
            "policy_ms": Target(value=20.0, at_least=False),
            "joint_ms": Target(value=150.0, at_least=False),
        },
    )


def _measure(
    name: str, device: torch.device, peak: float, steps: int, chunks: int, precision: str, compiled: bool
) -> dict[str, Any]:
    """The row of one model. Memory of the model before is let go first."""
    _forget(device)
    torch.manual_seed(0)
    kind, _, size_name = name.partition("-")
    size = SIZES[size_name]
    model = make_sized(size, wan=kind == "wan", device=device)
    row: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        **_trained(model, size, device, peak, steps, precision, compiled),
    }
    _forget(device)
    row |= _sampled(model, device, chunks, precision, compiled)
    return row


# ---------------------------------------------------------------- training


def _trained(
    model: WorldActionModel, size: Size, device: torch.device, peak: float, steps: int, precision: str, compiled: bool
) -> dict[str, Any]:
    def losses(batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return joint_losses(model, batch, generator=generator)

    model.train()
    flops = count_flops(losses, make_batch(model, COUNTED, device=device), precision)
    model.zero_grad(set_to_none=True)
    found: dict[str, Any] = {"flops_per_sample": flops}
    for way in ("eager", "compiled") if compiled else ("eager",):
        compile_blocks(model, way == "compiled")
        _forget(device)
        try:
            count, seconds = _steps(model, losses, size.batch, device, steps, precision)
        except RuntimeError as error:
            found[f"train_{way}"] = _failed(error)
            continue
        rate = count / statistics.median(seconds)
        run = {
            "samples_per_second": rate,
            "mfu": rate * flops / peak,
            "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0,
            "batch": count,
        }
        found[f"train_{way}"] = run
        if rate > found.get("samples_per_second", 0.0):
            found |= {**run, "train_by": way}
    compile_blocks(model, False)
    model.zero_grad(set_to_none=True)
    return found


def _steps(
    model: WorldActionModel, losses: Any, count: int, device: torch.device, steps: int, precision: str
) -> tuple[int, list[float]]:
    """Windows of a step, halved until they fit, and seconds of each step."""
    while True:
        try:
            return count, _time_steps(model, losses, count, device, steps, precision)
        except torch.OutOfMemoryError:
            if count == 1:
                raise
        count //= 2  # outside the handler, which still holds what the failed step had made
        model.zero_grad(set_to_none=True)
        _forget(device)


def _time_steps(
    model: WorldActionModel, losses: Any, count: int, device: torch.device, steps: int, precision: str
) -> list[float]:
    optimizers = make_optimizers(model, OptimizerConfig())
    batch = make_batch(model, count, device=device)

    def step() -> None:
        backward(losses, batch, precision, seed=0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return [_timed(step, device) for _ in range(steps + WARM_UP)][WARM_UP:]


# ---------------------------------------------------------------- sampling


@torch.no_grad()
def _sampled(
    model: WorldActionModel, device: torch.device, chunks: int, precision: str, compiled: bool
) -> dict[str, Any]:
    """Milliseconds of a chunk at batch 1, on a context that is there: by every way that runs, and the fastest of them."""
    model.eval()
    batch = make_batch(model, 1, device=device)
    half = precision == "bf16"
    found: dict[str, Any] = {}

    def halved(draw: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                return draw()

        return run

    context = halved(lambda: model.context(batch))()

    def drawing(conditional: str) -> Callable[[], Any]:
        return halved(lambda: getattr(model, conditional)(batch, steps=STEPS, context=context))

    plain = ("eager", "compiled") if compiled else ("eager",)
    ways = [(conditional, way) for conditional in ("policy", "joint") for way in plain]
    for conditional, way in [
        *ways,
        ("policy", "graph"),
    ]:  # a recording that fails may take the device with it: it comes last
        compile_blocks(model, way == "compiled")
        try:
            draw = _graph(model, context, half) if way == "graph" else drawing(conditional)
            taken = [1e3 * _timed(draw, device) for _ in range(chunks + WARM_UP)][WARM_UP:]
        except RuntimeError as error:
            found[f"{conditional}_{way}"] = _failed(error)
            continue
        run = {"ms": float(np.quantile(taken, 0.5)), "p99_ms": float(np.quantile(taken, 0.99))}
        found[f"{conditional}_{way}"] = run
        if run["ms"] < found.get(f"{conditional}_ms", float("inf")):
            found |= {f"{conditional}_{name}": value for name, value in run.items()} | {f"{conditional}_by": way}
    compile_blocks(model, False)
    return found


def _graph(model: WorldActionModel, context: Any, half: bool) -> Callable[[], Any]:
    graph = PolicyGraph(model, context, steps=STEPS, half=half)
    return lambda: graph(context)


# ---------------------------------------------------------------- the device


def _timed(run: Callable[[], Any], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - begun


def _forget(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _failed(error: RuntimeError) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"failed: {type(error).__name__}: {lines[0][:200]}"


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak(device: torch.device) -> float:
    """Of an accelerator that is known by name, bf16 operations a second by its maker's data sheet."""
    name = _named(device).lower()
    for known in ACCELERATORS.values():
        if known.name in name:
            return known.peak
    raise expected(
        f"an accelerator among {', '.join(ACCELERATORS)}",
        got=_named(device),
        do="add its data sheet to wam/training/hardware.py",
    )
