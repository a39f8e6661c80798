"""How a run lies over its processes: the whole model on each, spread by FSDP2, or its state spread by DeepSpeed's ZeRO."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, ProjectConfiguration, parse_flag_from_env
from torch import nn

from wam.contracts import Batch, expected
from wam.training.config import TrainConfig
from wam.training.optimizer import make_optimizers
from wam.training.sharding import shard, wants_shards
from wam.training.stage import Stage
from wam.training.zero import WholeAdamW, prepare_zero, wants_zero, zero_plugin


@dataclass(frozen=True, kw_only=True)
class Spread:
    """losses: the step's module, to be called; optimizers: what the loop steps; kept: whose state a checkpoint has.

    sharded: weights are DTensors, and each rank writes its own pieces.
    """

    losses: nn.Module
    optimizers: list[Any]
    kept: list[Any]
    sharded: bool = False

    @property
    def saved_together(self) -> bool:
        """Does every rank have to take part in saving?"""
        return self.sharded or any(isinstance(optimizer, WholeAdamW) for optimizer in self.kept)

    @property
    def left_out(self) -> bool:
        """Was the last step not taken, since a gradient was not finite?"""
        return any(isinstance(optimizer, WholeAdamW) and optimizer.left_out for optimizer in self.kept)


class _Losses(nn.Module):
    """The stage behind a forward method, so that wrappers (DDP, FSDP, DeepSpeed, autocast) see every use."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module = stage.module
        self._stage = [stage]  # in a list: the stage is no submodule

    def forward(self, batch: Batch | None, generator: torch.Generator | None) -> dict[str, Any]:
        """The losses of a batch; without one, the stage's figures on held-out data."""
        if batch is None or generator is None:
            return self._stage[0].check()
        return self._stage[0].losses(batch, generator=generator)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Accelerate for this run, as the launcher and the config ask. Raises WamError for what is not supported."""
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise expected("precision fp32 or bf16 on a CPU", got="fp16", do="set `precision=bf16`")
    # accelerate keeps one precision and one way per process; each run here has its own
    was_zero = PartialState._shared_state.get("distributed_type") == DistributedType.DEEPSPEED
    AcceleratorState._reset_state(reset_partial_state=was_zero)
    launched_so = parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")
    folder = str(Path(config.output))
    plugin = zero_plugin(config) if wants_zero(config.sharding) else None
    accelerator = Accelerator(
        mixed_precision="no" if plugin else {"fp32": "no"}.get(config.precision, config.precision),
        gradient_accumulation_steps=config.accumulate,
        cpu=plugin is None and not torch.cuda.is_available(),  # which would have accelerate forget DeepSpeed
        deepspeed_plugin=plugin,
        log_with=None if config.tracker == "none" else config.tracker,
        kwargs_handlers=[  # conditionals drop streams
            DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)
        ],
        project_config=ProjectConfiguration(project_dir=folder, logging_dir=folder),
    )
    if plugin is not None:
        accelerator.gradient_accumulation_steps = config.accumulate  # a DeepSpeed launch says one, whatever it is told
        os.environ["ACCELERATE_USE_DEEPSPEED"] = str(launched_so).lower()  # the plugin sets it, for every later run too
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise expected(
            "data-parallel training, FSDP2 or DeepSpeed",
            got="FSDP 1",
            do="launch with one of configs/accelerate/*.yaml",
        )
    return accelerator


def spread(stage: Stage, config: TrainConfig, accelerator: Accelerator) -> Spread:
    """The stage's step and its optimizers on this run's device or devices."""
    zero = accelerator.distributed_type == DistributedType.DEEPSPEED
    sharded = not zero and wants_shards(config.sharding, accelerator)
    if config.optimizer.kind != "adamw" and (sharded or zero):
        raise expected(
            f"whole matrices on every process for {config.optimizer.kind}",
            got="DeepSpeed, which spreads their state" if zero else "FSDP2, which shards them",
            do="set `optimizer.kind=adamw`, or train data-parallel",
        )
    losses = _Losses(stage)
    if sharded:
        shard(losses, accelerator, precision=config.precision)
        kept = make_optimizers(losses.module, config.optimizer)
        wrapped = [accelerator.prepare_optimizer(o, device_placement=False) for o in kept]
        return Spread(losses=losses, optimizers=wrapped, kept=kept, sharded=True)
    optimizers = make_optimizers(losses.module, config.optimizer)
    if zero:
        engine, wrapped, whole = prepare_zero(losses, optimizers, accelerator)
        return Spread(losses=engine, optimizers=wrapped, kept=[whole])
    prepared, *wrapped = accelerator.prepare(losses, *optimizers)
    return Spread(losses=prepared, optimizers=wrapped, kept=[getattr(o, "optimizer", o) for o in wrapped])
