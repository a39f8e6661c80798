"""`wam plan` for many accelerators: does the run fit, in which way, how fast, and the line that launches it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wam.contracts import expected
from wam.model.backbones.companions import companions
from wam.training.cluster import STRATEGIES, Workload, memory, samples_per_second, windows_that_fit
from wam.training.config import TrainConfig
from wam.training.count import count_parameters
from wam.training.hardware import ACCELERATORS, NODE, Accelerator, accelerator
from wam.training.on_paper import is_on_paper, make_on_paper, workload
from wam.training.without_data import make_without_data

COUNTS = (1, 8, 64, 512)
MOST = 512
NODES = 64
"""Of the third launch line."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way to train. windows: on each accelerator, 0 where not one fits; memory: bytes then, or with one window."""

    device: str
    strategy: str
    count: int
    windows: int
    memory: float
    samples_per_second: float

    def __str__(self) -> str:
        held, rate = f"{self.memory / 2**30:.0f} GiB", self.samples_per_second
        speed = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        return f"{held}, {self.windows} x, {speed}/s" if self.windows else f"needs {held}"


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """parts: parameters by part, companions too. cells: every accelerator, strategy and count that was asked for."""

    config: str
    work: Workload
    parts: dict[str, int]
    cells: tuple[Cell, ...]

    @property
    def figures(self) -> dict[str, float]:
        return {
            "parameters": self.work.parameters,
            "trainable": self.work.trainable,
            "companions": self.work.companions,
            "flops_per_sample": self.work.flops,
            "activation_bytes_per_sample": self.work.activations,
        }

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def best(self, device: str, count: int) -> Cell:
        """The fastest way that fits; of none, the one that needs least."""
        found = [cell for cell in self.cells if cell.device == device and cell.count == count]
        fitting = [cell for cell in found if cell.windows]
        if fitting:
            return max(fitting, key=lambda cell: cell.samples_per_second)
        return min(found, key=lambda cell: cell.memory)

    def __str__(self) -> str:
        work = self.work
        lines = [
            f"parameters                 {work.parameters:>16,.0f}   ({work.trainable:,.0f} trainable)",
            *(f"  {name:<24} {count:>16,}" for name, count in self.parts.items()),
            f"arithmetic                 {work.flops / 1e12:>16.3g} TFLOP a window, forward and backward",
            f"activations                {work.activations / 2**20:>16,.0f} MiB a window",
            "on each accelerator: memory, windows, and windows a second of all together (a roofline, not measured)",
        ]
        for device in dict.fromkeys(cell.device for cell in self.cells):
            counts = list(dict.fromkeys(cell.count for cell in self.cells))
            about = ACCELERATORS[device]
            lines.append(f"{device} ({about.memory / 2**30:.0f} GiB)".ljust(16) + "".join(f"{n:>26}" for n in counts))
            for strategy in STRATEGIES:
                row = [c for c in self.cells if c.device == device and c.strategy == strategy]
                lines.append(f"  {strategy:<14}" + "".join(f"{cell!s:>26}" for cell in row))
        return "\n".join([*lines, *self.launches()])

    def launches(self) -> list[str]:
        """For one accelerator, one node and many nodes of the first kind on which all of the three fit, else of the first."""
        devices = list(dict.fromkeys(cell.device for cell in self.cells))
        wanted = (1, NODE, NODE * NODES)
        missing = [count for count in wanted if not any(cell.count == count for cell in self.cells)]
        if missing:
            return []
        device = next((d for d in devices if all(self.best(d, n).windows for n in wanted)), devices[0])
        lines = [f"to launch, on {device}"]
        for count, name in zip(wanted, ("one", "one node", f"{NODES} nodes"), strict=True):
            lines.append(f"  {name:<10} {launch_line(self.config, self.best(device, count))}")
        return lines


def launch_line(config: str, cell: Cell) -> str:
    """What starts the run. On several nodes it is given on each, with its own RANK and the first one's address as HEAD."""
    if not cell.windows:
        return f"does not fit: {cell} by {cell.strategy}"
    own = {"zero3": "fsdp2", "zero2": "fsdp2-zero2", "offload": "fsdp2-offload"}.get(cell.strategy, cell.strategy)
    kind = "one-gpu" if cell.count == 1 and cell.strategy != "offload" else own
    nodes = -(-cell.count // NODE)
    where = f"--num_processes {cell.count}"
    if nodes > 1:
        where += f" --num_machines {nodes} --machine_rank $RANK --main_process_ip $HEAD --main_process_port 29500"
    launcher = f"accelerate launch --config_file configs/accelerate/{kind}.yaml {where} --no_python"
    return f"{launcher} wam train {config} batch_size={cell.count * cell.windows}"


def cluster_plan(
    config: TrainConfig, path: str | Path, *, devices: Sequence[str] = (), counts: Sequence[int] = COUNTS
) -> ClusterPlan:
    """Plan the run of a config for these accelerators (all that are known, if none is named) and numbers of them."""
    config = copy.deepcopy(config)
    config.validate()
    if not counts or any(not 1 <= count <= MOST for count in counts):
        raise expected(f"numbers of accelerators from 1 to {MOST}", got=list(counts), do="correct them")
    chosen = [accelerator(name) for name in devices] or list(ACCELERATORS.values())
    torch.manual_seed(config.seed)
    made = make_on_paper(config) if is_on_paper(config) else make_without_data(config)
    work = workload(config, made)
    beside = {
        f"{name}, frozen": count
        for c in config.model.streams.values()
        if c.backbone is not None
        for name, count in companions(c.backbone.name).items()
    }
    return ClusterPlan(
        config=str(path),
        work=work,
        parts={**count_parameters(made.module), **beside},
        cells=tuple(
            _cell(work, device, strategy, count, config.batch_size)
            for device in chosen
            for strategy in STRATEGIES
            for count in counts
        ),
    )


def _cell(work: Workload, device: Accelerator, strategy: str, count: int, most: int) -> Cell:
    windows = windows_that_fit(work, device, strategy, count=count, most=most)
    return Cell(
        device=device.name,
        strategy=strategy,
        count=count,
        windows=windows,
        memory=sum(memory(work, strategy, count=count, windows=max(1, windows)).values()),
        samples_per_second=samples_per_second(work, device, strategy, count=count, windows=max(1, windows)),
    )
