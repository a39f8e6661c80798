"""The cloning stage: the small L1 control on the same windows as the joint stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wam.contracts import Batch
from wam.model.cloning import CloningConfig, CloningPolicy
from wam.training.config import TrainConfig
from wam.training.data import fit_dimensions, fit_normalizers, make_mixture


def as_joint(config: TrainConfig) -> CloningConfig:
    """The run's cloning settings, with what a joint model of the same run would see, read of the state, and do."""
    own, model = config.cloning, config.model
    own.views, own.history, own.image_size = len(config.data.cameras), model.history, model.image_size
    own.chunk, own.action_dim, own.state_dim = model.chunk, model.action_dim, model.state_dim
    own.columns = model.streams["state"].columns if "state" in model.streams else []
    return own


class CloningStage:
    """Trains a `CloningPolicy`."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.mixture, self.aside = make_mixture(config)
        datasets = self.mixture.datasets
        fit_dimensions(config.model, [d.store for d in datasets])
        c = as_joint(config)
        space = next((d.store.info.action_space for d in datasets if d.store.info.action_space), None)
        self.policy = CloningPolicy(c, action_space=space)
        self.module: nn.Module = self.policy
        fit_normalizers(self.policy, datasets)

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": self.policy.loss(batch)}

    def check(self) -> dict[str, float]:
        return {}

    def save(self, folder: Path, *, tensors: dict[str, Tensor], provenance: dict[str, Any]) -> None:
        self.policy.save_pretrained(
            folder, tensors=tensors, cameras=tuple(self.config.data.cameras), provenance=provenance
        )
