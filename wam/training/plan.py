"""What a training run will take before it is started: parameters, memory, arithmetic, speed, time and money.

The plan runs a few real steps on batches of noise with the shapes of the config, so it needs no data. Where the
datasets of the config are there, their dimensions and sizes are used.
"""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.data.store import EpisodeStore
from wam.progress import duration
from wam.training.config import TrainConfig
from wam.training.count import backward, count_flops, count_parameters, saved_bytes
from wam.training.data import fit_dimensions
from wam.training.ema import Ema
from wam.training.optimizer import make_optimizers
from wam.training.without_data import Losses, make_without_data

COUNTED = 2
"""Windows in the batch whose arithmetic is counted: it is the same for every window."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """parameters: by part of the model. memory: bytes by what they hold; peak: measured on an accelerator, in bytes.

    flops_per_sample: of one window forward and backward, a multiply and an add counting two. seconds: to finish.
    cost: of these at `price_per_hour`, if one was given. windows: in the training data, where it is there.
    """

    parameters: dict[str, int]
    trainable: int
    memory: dict[str, int]
    peak: int | None
    flops_per_sample: float
    samples_per_second: float
    steps: int
    batch_size: int
    seconds: float
    price_per_hour: float | None = None
    windows: int | None = None
    device: str = "cpu"
    precision: str = "bf16"
    threads: int = 1
    timed: list[float] = field(default_factory=list)

    @property
    def cost(self) -> float | None:
        return None if self.price_per_hour is None else self.price_per_hour * self.seconds / 3600

    @property
    def passes(self) -> float | None:
        """How often each window will be seen."""
        return None if not self.windows else self.steps * self.batch_size / self.windows

    @property
    def figures(self) -> dict[str, float]:
        found = {
            "parameters": sum(self.parameters.values()),
            "trainable": self.trainable,
            "memory_bytes": sum(self.memory.values()),
            "flops_per_sample": self.flops_per_sample,
            "samples_per_second": self.samples_per_second,
            "steps": self.steps,
            "hours": self.seconds / 3600,
            "cost": self.cost,
            "passes": self.passes,
            "peak_bytes": self.peak,
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"  {name:<24} {count:>14,}" for name, count in self.parameters.items()]
        held = [f"  {name:<24} {size / 2**20:>10,.1f} MiB" for name, size in self.memory.items()]
        peak = [] if self.peak is None else [f"  {'peak, measured':<24} {self.peak / 2**20:>10,.1f} MiB"]
        speed = self.samples_per_second * self.flops_per_sample
        lines = [
            f"parameters                 {sum(self.parameters.values()):>14,}   ({self.trainable:,} trainable)",
            *parts,
            f"memory                     {sum(self.memory.values()) / 2**20:>10,.1f} MiB",
            *held,
            *peak,
            f"arithmetic                 {self.flops_per_sample / 1e9:>10.3g} GFLOP a window, forward and backward",
            f"speed                      {self.samples_per_second:>10.3g} windows a second = {speed / 1e9:.3g} GFLOP/s "
            f"({self.device}, {self.precision}, {self.threads} thread(s), {len(self.timed)} steps timed)",
            f"run                        {self.steps:>10,} steps of {self.batch_size} windows"
            + ("" if self.passes is None else f" = {self.passes:.3g} passes over {self.windows:,} windows"),
            f"time                       {duration(self.seconds):>10}",
        ]
        if self.cost is not None:
            lines.append(f"cost                       {self.cost:>10.2f} at {self.price_per_hour:g} an hour")
        return "\n".join(lines)


def plan(
    config: TrainConfig,
    *,
    price_per_hour: float | None = None,
    timed_steps: int = 3,
    device: torch.device | str | None = None,
) -> Plan:
    """Plan the run of a config on this machine. timed_steps: how many, after one that warms up."""
    config = copy.deepcopy(config)
    config.validate()
    if timed_steps < 1 or (price_per_hour is not None and price_per_hour < 0):
        raise expected(
            "timed_steps of at least 1 and a price of at least 0",
            got=f"{timed_steps} and {price_per_hour}",
            do="correct them",
        )
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if config.threads:
        torch.set_num_threads(config.threads)
    windows = read_data(config)
    torch.manual_seed(config.seed)
    made = make_without_data(config)
    module, losses, batch = made.module.to(device).train(), made.losses, made.batch.to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, saved, memory = _time_steps(config, module, losses, batch, timed_steps)
    if windows and config.data.cache == "memory" and device.type == "cpu":
        memory["frames of the data"] = windows * config.model.views * 3 * config.model.image_size**2
    per_step = statistics.median(seconds)
    steps = config.steps or max(1, int(config.minutes * 60 / per_step))
    return Plan(
        parameters=count_parameters(module),
        trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        memory={**memory, "activations": saved},
        peak=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        flops_per_sample=count_flops(losses, batch[:COUNTED], config.precision),
        samples_per_second=config.batch_size * config.accumulate / per_step,
        steps=steps,
        batch_size=config.batch_size * config.accumulate,
        seconds=steps * per_step,
        price_per_hour=price_per_hour,
        windows=windows,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        precision=config.precision,
        threads=torch.get_num_threads(),
        timed=seconds,
    )


def read_data(config: TrainConfig) -> int | None:
    """Windows to train on, from the datasets that are there; sets the model's action and state dimensions from them."""
    there = [part.root for part in config.data.parts if (Path(part.root) / "meta" / "info.json").is_file()]
    if not there or len(there) < len(config.data.parts):
        return None
    stores = [EpisodeStore(root) for root in there]
    fit_dimensions(config.model, stores)
    frames = sum(episode.length for store in stores for episode in store.episodes)
    return int(frames * (1 - config.data.held_out))


def _time_steps(
    config: TrainConfig, module: nn.Module, losses: Losses, batch: Batch, count: int
) -> tuple[list[float], int, dict[str, int]]:
    """Seconds of each training step after the first, bytes of activations, and bytes of everything else."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizers = make_optimizers(module, config.optimizer)
    averaged = Ema(module, decay=config.ema)
    wait = torch.cuda.synchronize if batch.images.is_cuda else lambda: None
    saved = saved_bytes(losses, batch, config.precision, but=module)
    seconds, gradients = [], 0
    for step in range(count + 1):
        wait()
        begun = time.perf_counter()
        for part in range(config.accumulate):
            backward(losses, batch, config.precision, seed=step * config.accumulate + part)
        torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip)
        gradients = sum(p.grad.nbytes for p in parameters if p.grad is not None)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        averaged.update(module)
        wait()
        seconds.append(time.perf_counter() - begun)
    memory = {
        "weights": sum(t.nbytes for t in module.state_dict().values()),
        "gradients": gradients,
        "optimizer": sum(
            t.nbytes for o in optimizers for entry in o.state.values() for t in entry.values() if isinstance(t, Tensor)
        ),
        "averaged copy": sum(t.nbytes for t in averaged.tensors.values()),
    }
    return seconds[1:], saved, memory
