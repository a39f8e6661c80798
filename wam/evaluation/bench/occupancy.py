"""What voxels cost: a training step with them over one without, colours too, and a future without being asked for them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from wam.contracts import Batch
from wam.evaluation.bench.timing import BenchResult, Target, default_device, time_in_turns
from wam.model.config import ModelConfig, OccupancyConfig
from wam.model.synthetic import synthetic_batch
from wam.model.wam import WorldActionModel
from wam.training.config import OptimizerConfig
from wam.training.objective import joint_losses
from wam.training.optimizer import make_optimizers


def voxel_config() -> ModelConfig:
    """That of configs/train/occupancy.yaml."""
    config = ModelConfig(depth=2, draws=1, video_share=0.44, future=[10, 20], chunk=20)
    config.occupancy.loss_weight = 1.0
    return config


def bench_occupancy(
    *,
    config: ModelConfig | None = None,
    batch_size: int = 96,
    repeats: int = 15,
    device: torch.device | None = None,
) -> BenchResult:
    """step_overhead: forward, backward and optimizer, in bf16. idle_overhead: one step of forward dynamics.
    painted_overhead: the step of voxels with colours and distances over that of voxels alone."""
    device = device or default_device()
    with_voxels = config or voxel_config()
    without = copy.deepcopy(with_voxels)
    without.occupancy = OccupancyConfig()
    painted = copy.deepcopy(with_voxels)
    painted.occupancy.colour_weight = painted.occupancy.distance_weight = 1.0
    full = synthetic_batch(painted, batch_size).to(device)
    batch = full.without("occupancy_colour")
    models = {}
    for name, one in (("with", with_voxels), ("without", without), ("painted", painted)):
        torch.manual_seed(0)
        models[name] = WorldActionModel(one).to(device)
    steps = {name: _step(model, full if name == "painted" else batch, device) for name, model in models.items()}
    trained = time_in_turns(steps, repeats=repeats, device=device)
    few = batch[: min(8, batch_size)]
    idle = time_in_turns(
        {name: lambda model=models[name]: model.forward_dynamics(few, steps=1) for name in ("with", "without")},  # type: ignore[misc]
        repeats=repeats,
        device=device,
    )
    found = {
        "step": trained.compare("with", "without"),
        "idle": idle.compare("with", "without"),
        "painted": trained.compare("painted", "with"),
    }
    return BenchResult(
        name="occupancy",
        figures={
            "step_overhead": found["step"]["ratio"],
            "idle_overhead": found["idle"]["ratio"],
            "painted_overhead": found["painted"]["ratio"],
        },
        detail={"batch_size": batch_size, "rows": with_voxels.occupancy.rows, **found},
        n=repeats,
        targets={
            "step_overhead": Target(value=1.25, at_least=False),
            "idle_overhead": Target(value=1.05, at_least=False),
            "painted_overhead": Target(value=1.15, at_least=False),
        },
    )


def _step(model: WorldActionModel, batch: Batch, device: torch.device) -> Callable[[], None]:
    optimizers = make_optimizers(model, OptimizerConfig(kind="muon"))

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))["loss"]
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step
