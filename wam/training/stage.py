"""What differs between stages of training: how data and network are made, and how a batch becomes losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.data.mixture import Mixture
from wam.training.config import TrainConfig


class Stage(Protocol):
    """`module` holds everything trainable; `mixture` gives the batches."""

    module: nn.Module
    mixture: Mixture

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses by name; `loss` is minimised. Every random draw comes from the generator."""
        ...

    def check(self) -> dict[str, float]:
        """Figures on held-out data, for the log; the stage warns by itself where one is bad."""
        ...

    def save(self, folder: Path, *, tensors: dict[str, Tensor], provenance: dict[str, Any]) -> None:
        """Write a usable model folder with these weights."""
        ...


@runtime_checkable
class BetweenSteps(Protocol):
    """A stage that has something to do between training steps, such as gathering data with what it has learned so far.

    What it does has to follow from the weights and the step alone, so that a resumed run equals an uninterrupted one.
    """

    def before_step(self, step: int, total: int) -> None:
        """Called before each step is taken. step: done so far; total: of the run, 0 while that is still being timed."""
        ...


StageMaker = Callable[[TrainConfig], Stage]


def make_stage(config: TrainConfig) -> Stage:
    """The stage that `config.stage` names. Rooms above this one bring theirs to `train(config, make=...)`."""
    from wam.training.stages.autoencoder import AutoencoderStage
    from wam.training.stages.cloning import CloningStage
    from wam.training.stages.joint import JointStage
    from wam.training.stages.latent_action import LatentActionStage
    from wam.training.stages.pretrain import PosttrainStage, PretrainStage

    stages: dict[str, StageMaker] = {
        "joint": JointStage,
        "autoencoder": AutoencoderStage,
        "cloning": CloningStage,
        "latent-action": LatentActionStage,
        "pretrain": PretrainStage,
        "posttrain": PosttrainStage,
    }
    if config.stage not in stages:
        raise expected(f"a stage among {', '.join(stages)}", got=repr(config.stage), do="set `stage` to one of them")
    return stages[config.stage](config)
