"""What each of two processes runs in the tests of training over ranks."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tests.training.conftest import toy_config
from tests.training.test_trainer import StopAfter
from wam.contracts import Batch, WamError
from wam.training.config import TrainConfig
from wam.training.stages.joint import JointStage
from wam.training.state import last_checkpoint, load_training
from wam.training.trainer import InterruptedRunError, Trainer, train

STEPS, STOP = 6, 3


def run_config(toy: Path, output: Path, ranks: int, **changes: Any) -> TrainConfig:
    """Eight windows a step in two shares: of two ranks, or of one that accumulates."""
    shares = {"batch_size": 8} if ranks == 2 else {"batch_size": 4, "accumulate": 2}
    return toy_config(toy, output, steps=STEPS, save_every=100, **shares, **changes)


def train_until(config: TrainConfig, stop: int, *, on: bool = True) -> None:
    """Stop after so many steps, by a signal to the processes that are `on`."""
    config.validate()
    torch.manual_seed(config.seed)
    share = config.accumulate * stop
    stage = StopAfter(JointStage(config), share if on else -1, signal.SIGTERM)
    try:
        train(config, stage=stage)  # type: ignore[arg-type]
    except InterruptedRunError:
        return
    raise AssertionError("the run went on")


def plain_losses(stage: JointStage, batch: Batch, *streams: str) -> Tensor:
    """Without random draws: a mean over rows, as any stage's in expectation. streams: those that are denoised, if not all."""
    context = stage.model.network.context(stage.model.normalized(batch))
    signals = stage.model.signals(stage.model.normalized(batch))
    signals = {s: signals[s] for s in streams or signals}
    clocks = {s: torch.full((batch.size,), 0.5) for s in signals}
    found = stage.model.network.denoise(context, signals, clocks)
    return torch.stack([value.square().flatten(1).mean(1).mean() for value in found.values()]).sum()


class Drawless(JointStage):
    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": plain_losses(self, batch)}


class Uneven(JointStage):
    """Every second share of a step, which is the second rank's, leaves out the future and all that it alone uses."""

    calls = 0

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        spread = torch.distributed.is_initialized()
        share = torch.distributed.get_rank() if spread else self.calls % 2
        self.calls += 1
        return {"loss": plain_losses(self, batch, *(["action"] if share else []))}


class Watched(JointStage):
    """Notes the precision of autocast that it is run in."""

    seen: ClassVar[set[str]] = set()

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        self.seen.add(str(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else "none")
        return super().losses(batch, generator=generator)


class BadGradient(JointStage):
    """From the third batch on, a finite loss whose gradient is not."""

    calls = 0

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        found = super().losses(batch, generator=generator)
        self.calls += 1
        number = next(p for p in self.module.parameters() if p.numel()).flatten()[0]
        return {**found, "loss": found["loss"] + (number * 0).sqrt()} if self.calls > 2 else found


def in_four_shares(toy: Path, output: Path, ranks: int, **changes: Any) -> TrainConfig:
    """Eight windows a step, two a share."""
    shares = {"batch_size": 2 * ranks, "accumulate": 4 // ranks}
    return toy_config(toy, output, steps=STEPS, save_every=100, **shares, **changes)


def data_parallel(toy: Path, out: Path, rank: int) -> None:
    train(run_config(toy, out / "two", 2))
    train_until(run_config(toy, out / "two-then-one", 2), STOP, on=rank == 1)
    train(run_config(toy, out / "one-then-two", 2))
    train(run_config(toy, out / "two-drawless", 2), make=Drawless)


def sharded(toy: Path, out: Path, rank: int) -> None:
    changes: dict[str, Any] = {"sharding": "fsdp2", "check_every": STEPS}
    train(run_config(toy, out / "sharded", 2, **changes))
    train_until(run_config(toy, out / "sharded-then-one", 2, sharding="fsdp2"), STOP)
    state = last_checkpoint(out / "sharded-then-one")
    assert state is not None
    pieces = load_training(state / "training")[0]["weights"]
    if rank == 0:
        (out / "whole.json").write_text(json.dumps(sorted(pieces)))
    train(run_config(toy, out / "one-then-sharded", 2, sharding="fsdp2"))
    low = run_config(toy, out / "sharded-bf16", 2, sharding="fsdp2", precision="bf16")
    low.model.checkpointing = "blocks"
    train(low)


def zero(toy: Path, out: Path, rank: int) -> None:
    """Started by accelerate with a file that asks for DeepSpeed, until the config asks for it."""
    config = run_config(toy, out / "zero2", 2, check_every=STEPS)
    torch.manual_seed(config.seed)
    whole = Trainer(config, JointStage(config))
    whole.run(resume=False)
    train_until(run_config(toy, out / "zero2-then-one", 2), STOP, on=rank == 1)
    train_until(run_config(toy, out / "zero2-then-zero2", 2), STOP)
    train(run_config(toy, out / "zero2-then-zero2", 2))
    train(run_config(toy, out / "one-then-zero2", 2))
    train(run_config(toy, out / "zero2-bf16", 2, precision="bf16"), make=Watched)
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "false"
    train(in_four_shares(toy, out / "zero1-in-four", 2, sharding="zero1"))
    train(run_config(toy, out / "zero2-uneven", 2, sharding="zero2"), make=Uneven)
    try:
        train(run_config(toy, out / "zero2-bad", 2, sharding="zero2"), make=BadGradient)
        refused = ""
    except WamError as error:
        refused = str(error)
    plain = Trainer(config, JointStage(config))
    own = [moments["exp_avg"].numel() for moments in whole.losses.optimizer.optimizer.state.values()]
    share = sum(own) / sum(p.numel() for p in whole.stage.module.parameters() if p.requires_grad)
    if rank == 0:
        engines = [type(trainer.losses).__name__ for trainer in (whole, plain)]
        told = {"engines": engines, "refused": refused, "autocast": sorted(Watched.seen), "share": share}
        (out / "zero.json").write_text(json.dumps(told))


if __name__ == "__main__":
    case, toy, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    from accelerate import PartialState

    state = PartialState(cpu=True)
    {"data_parallel": data_parallel, "sharded": sharded, "zero": zero}[case](toy, out, state.process_index)
    state.wait_for_everyone()
    state.destroy_process_group()
