"""The joint stage: video, actions and whatever else the model streams, from labelled episodes and play."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.model.pretrained import save_pretrained
from wam.model.wam import WorldActionModel
from wam.training.config import TrainConfig
from wam.training.data import fit_normalizers, make_mixture
from wam.training.objective import joint_losses

SENSITIVE_ENOUGH = 1.1
"""Below this ratio of shuffled to true error a world model does not listen to its actions, and the run says so."""


class JointStage:
    """Trains a `WorldActionModel` on a mixture of datasets that share its cameras."""

    module: nn.Module

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.mixture, self.aside = make_mixture(config)
        first = self.mixture.datasets[0].store
        self.action_space = next(
            (d.store.info.action_space for d in self.mixture.datasets if d.store.info.action_space), None
        )
        for name in ("action", "state"):
            dims = [getattr(d, f"{name}_dim") for d in self.mixture.datasets if getattr(d, f"{name}_dim")]
            if dims:
                setattr(config.model, f"{name}_dim", max(dims))
        self.model = WorldActionModel(config.model, action_space=self.action_space)
        self.module: nn.Module = self.model
        self.statistics = first.statistics
        fit_normalizers(self.model, self.mixture.datasets)

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        if batch.action is not None and not torch.isfinite(batch.action).all():
            raise expected("finite actions", got="NaN or infinity", do="find them with `wam data doctor`")
        return joint_losses(self.model, batch, generator=generator)

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Forward dynamics on held-out windows: error with shuffled over true actions, and gain over copying in dB."""
        batch = self.aside
        if batch is None or batch.action is None or batch.future is None or "future" not in self.config.model.streams:
            return {}
        if "action" not in self.config.model.streams:
            return {}
        batch = batch.to(next(self.module.parameters()).device)
        assert batch.future is not None
        assert batch.action is not None
        real = batch.future.float() / 255
        shuffled = batch.replace(action=batch.action.roll(batch.size // 2, 0))  # neighbours have nearly the same action
        predicted = [self.model.forward_dynamics(b, steps=1).future for b in (batch, shuffled)]
        true_error, wrong_error = ((p - real).square().mean().item() for p in predicted if p is not None)
        copy_error = (batch.images[:, :, -1:].float() / 255 - real).square().mean().item()
        ratio = wrong_error / max(true_error, 1e-12)
        if ratio < SENSITIVE_ENOUGH:
            warnings.warn(
                f"the world model does not listen to its actions yet: error with shuffled actions is {ratio:.2f} "
                "times that with the true ones; if this stays, let actions modulate the future (model.visibility) "
                "and add play",
                stacklevel=2,
            )
        return {
            "action_sensitivity": ratio,
            "forward_gain_db": 10 * float(np.log10(copy_error / max(true_error, 1e-12))),
        }

    def save(self, folder: Path, *, tensors: dict[str, Tensor], provenance: dict[str, Any]) -> None:
        save_pretrained(
            self.model,
            folder,
            tensors=tensors,
            cameras=tuple(self.config.data.cameras),
            statistics=self.statistics.to_json() if hasattr(self.statistics, "to_json") else {},
            provenance={**provenance, "windows": dict(zip(self.mixture.names, self.mixture.sizes, strict=True))},
        )
