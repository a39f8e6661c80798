"""One process of `wam bench ranks`: the trainer on batches of noise, `python -m wam.evaluation.bench.ranks_worker SETTINGS`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wam.contracts import Batch
from wam.model.config import ModelConfig
from wam.model.synthetic import synthetic_batch
from wam.model.wam import WorldActionModel
from wam.training.config import TrainConfig
from wam.training.objective import joint_losses
from wam.training.trainer import train


class Noise:
    """A mixture of one dataset whose windows are all alike: reading them costs nothing."""

    def __init__(self, config: ModelConfig, size: int) -> None:
        self.sizes, self.weights = [1024], [1.0]
        self._batch = synthetic_batch(config, size)

    def batch(self, draws: np.ndarray) -> Batch:
        return self._batch[: len(draws)]


class NoiseStage:
    """The joint stage without data; it notes when each step begins."""

    def __init__(self, config: TrainConfig) -> None:
        self.module: nn.Module = WorldActionModel(config.model)
        self.mixture: Any = Noise(config.model, config.batch_size)
        self.begun: list[float] = []

    def before_step(self, step: int, total: int) -> None:
        self.begun.append(time.perf_counter())

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(self.module, WorldActionModel)
        return joint_losses(self.module, batch, generator=generator)

    def check(self) -> dict[str, float]:
        return {}

    def save(self, folder: Path, *, tensors: dict[str, Tensor], provenance: dict[str, Any]) -> None:
        """Nothing is worth keeping."""


def main(settings: Path) -> None:
    told = json.loads(settings.read_text())
    config = TrainConfig(
        output=told["output"],
        steps=told["steps"],
        batch_size=told["batch_size"],
        precision=told["precision"],
        threads=1,
        save_every=told["steps"] + 1,
        check_every=0,
        tracker="none",
    )
    config.validate()
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    stage = NoiseStage(config)
    train(config, stage=stage)
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        steps = np.diff(stage.begun)[told["warmup"] :]
        Path(told["seconds"]).write_text(json.dumps({"ranks": state.num_processes, "seconds": steps.tolist()}))
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
