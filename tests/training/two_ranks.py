"""What each of two processes runs in the tests of training over ranks."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.training.conftest import toy_config
from tests.training.test_trainer import StopAfter
from wam.contracts import Batch
from wam.training.config import TrainConfig
from wam.training.stages.joint import JointStage
from wam.training.state import last_checkpoint, load_training
from wam.training.trainer import InterruptedRunError, train

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


def plain_losses(stage: JointStage, batch: Batch) -> Tensor:
    """Without random draws: a mean over rows, as any stage's in expectation."""
    context = stage.model.network.context(stage.model.normalized(batch))
    signals = stage.model.signals(stage.model.normalized(batch))
    clocks = {s: torch.full((batch.size,), 0.5) for s in signals}
    found = stage.model.network.denoise(context, signals, clocks)
    return torch.stack([value.square().flatten(1).mean(1).mean() for value in found.values()]).sum()


class Drawless(JointStage):
    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": plain_losses(self, batch)}


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


if __name__ == "__main__":
    case, toy, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    from accelerate import PartialState

    state = PartialState(cpu=True)
    {"data_parallel": data_parallel, "sharded": sharded}[case](toy, out, state.process_index)
    state.wait_for_everyone()
    state.destroy_process_group()
