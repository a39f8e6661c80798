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
from wam.model.wam import CONTEXT, WorldActionModel
from wam.training.config import TrainConfig
from wam.training.data import action_chunks, fit_dimensions, fit_grid, fit_normalizers, make_mixture
from wam.training.latent_cache import open_cache
from wam.training.latents import LatentLabels
from wam.training.objective import joint_losses
from wam.training.pseudo import PseudoLabels
from wam.training.start import start_from
from wam.training.tuning import tune_soft_prompts

SENSITIVE_ENOUGH = 1.1
"""Below this ratio of shuffled to true error a world model does not listen to its actions, and the run says so."""


class JointStage:
    """Trains a `WorldActionModel` on a mixture of datasets that share its cameras."""

    module: nn.Module

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        made = open_cache(config)
        given: dict[str, Any] = {} if made is None else {"latents": made.files, "pictures": made.pictures}
        self.mixture, self.aside = make_mixture(config, **given)
        first = self.mixture.datasets[0].store
        self.action_space = next(
            (d.store.info.action_space for d in self.mixture.datasets if d.store.info.action_space), None
        )
        stores = [d.store for d in self.mixture.datasets]
        fit_dimensions(config.model, stores)
        fit_grid(config.model, stores)
        self.latents = LatentLabels(config.latent_actions, config.model) if config.latent_actions else None
        if self.latents is not None:
            config.model.latent_action_dim, config.model.latent_action_length = self.latents.dim, self.latents.length
        elif "latent_action" in config.model.streams:
            raise expected(
                "a tokenizer for the latent_action stream",
                got="none",
                do="set latent_actions to a trained one's folder",
            )
        encoders: dict[str, Any] = {} if made is None else {"video": made.video, "text": made.text}
        self.model = WorldActionModel(config.model, action_space=self.action_space, **encoders)
        self.started = start_from(self.model, config.start) if config.start.checkpoint else None
        if self.started is not None:
            print(self.started, flush=True)
        if config.tune == "soft_prompts":
            print(f"training {tune_soft_prompts(self.model.network):,} numbers of soft prompts alone", flush=True)
        self.module: nn.Module = self.model
        self.statistics = first.statistics
        fit_normalizers(self.model, self.mixture.datasets)
        if not self.model.action_codes.fitted:
            chunks = torch.from_numpy(action_chunks(self.mixture.datasets, config.model.chunk))
            self.model.action_codes.fit(self.model.normalizer("action").normalize(chunks).numpy())
        self.pseudo: PseudoLabels | None = None
        if config.pseudo_labels:
            assert self.latents is not None
            self.pseudo = PseudoLabels.fit(self.latents, self.mixture.datasets)
            print(self.pseudo, flush=True)
            for dataset in self.mixture.datasets:
                if dataset.action_dim is None:
                    self.pseudo.label(dataset, states=config.pseudo_states)

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        if batch.action is not None and not torch.isfinite(batch.action).all():
            raise expected("finite actions", got="NaN or infinity", do="find them with `wam data doctor`")
        return joint_losses(self.model, self._with_latents(batch), generator=generator)

    def _with_latents(self, batch: Batch) -> Batch:
        """With its latent actions, where the model has a stream of them."""
        if self.latents is None or "latent_action" not in self.config.model.streams:
            return batch
        return self.latents.label(batch)

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Forward dynamics on held-out windows: error with shuffled over true actions, and gain over copying in dB.

        Where the model has no actions, its latent actions stand in for them."""
        batch, streams = self.aside, self.config.model.streams
        acted = "action" if "action" in streams else "latent_action"
        if batch is None or batch.future is None or "future" not in streams:
            return {}
        batch = batch.to(next(self.module.parameters()).device)
        batch = self._with_latents(batch)
        action = getattr(batch, acted)
        if action is None or acted not in streams:
            return {}
        assert batch.future is not None
        real = batch.future.float() / 255
        shuffled = batch.replace(**{acted: action.roll(batch.size // 2, 0)})  # neighbours have nearly the same action
        predicted = [
            self.model.sample(b, given=(*CONTEXT, acted), want=("future",), steps=1).future for b in (batch, shuffled)
        ]
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
        if self.config.model.action_tokens.kind != "none":
            self.model.action_codes.save(folder / "action_tokens.json")
        save_pretrained(
            self.model,
            folder,
            tensors=tensors,
            cameras=tuple(self.config.data.cameras),
            statistics=self.statistics.to_json() if hasattr(self.statistics, "to_json") else {},
            provenance={
                **provenance,
                "windows": dict(zip(self.mixture.names, self.mixture.sizes, strict=True)),
                **({} if self.pseudo is None else {"pseudo_labels": str(self.pseudo)}),
                **({} if self.started is None else {"started_from": str(self.started.folder)}),
            },
        )
