"""The latent-action stage: a tokenizer of what happens between frames, from any video; actions stay hidden unless asked."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.data.mixture import Mixture
from wam.data.windows import WindowDataset, WindowSpec
from wam.tokenizers.latent_action import LatentActionConfig, LatentActionObjective
from wam.tokenizers.latent_action.objective import CHANGED
from wam.training.config import TrainConfig
from wam.training.data import open_part

LABELLED = "-labelled"
"""Ending of the names of datasets whose actions may be seen."""
SENSITIVE_ENOUGH = 1.1
"""Below this ratio of shuffled to true error the decoder does not listen to the codes, and the run says so."""


class LatentActionStage:
    """Trains a `LatentActionObjective` and saves its tokenizer."""

    module: nn.Module

    def __init__(self, config: TrainConfig) -> None:
        self.config, own = config, config.latent_action
        own.views = len(config.data.cameras)
        own.validate()
        self.mixture, self.aside = latent_action_mixture(config)
        self.labelled = torch.tensor([name.endswith(LABELLED) for name in self.mixture.names])
        dims = {
            name: max((getattr(d, name) or 0 for d in self.mixture.datasets), default=0)
            for name in ("action_dim", "state_dim")
        }
        if own.labels.share and not dims["action_dim"]:
            raise expected(
                "a dataset with actions to show some of them", got="none", do="set latent_action.labels.share to 0"
            )
        self.objective = LatentActionObjective(own, **dims)
        self.objective.tokenizer.cameras = tuple(config.data.cameras)
        if self.objective.labels is not None:
            fit_scales(self.objective.labels, self.mixture.datasets)
        self.module = self.objective
        self.gap_seconds = own.gap / self.mixture.datasets[0].store.info.fps

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        labelled = None
        if self.objective.labels is None:
            batch = batch.without("action", "action_mask", "state")
        elif batch.source is not None:
            labelled = self.labelled.to(batch.source.device)[batch.source]
        losses = self.objective.losses(batch, generator=generator, labelled=labelled)
        self._guard()
        return losses

    def _guard(self) -> None:
        """Stop on a collapsed codebook: what comes after it is lost time."""
        own, quantizer = self.config.latent_action, self.objective.tokenizer.quantizer
        if int(quantizer.batches) < own.collapse_after:
            return
        health = quantizer.health
        below = min(own.collapse_below, health.size)
        if health.perplexity < below:
            raise expected(
                f"codes used at least as evenly as {below:g} of {health.size}",
                got=f"a perplexity of {health.perplexity:.2f} after {int(quantizer.batches)} batches: they have collapsed",
                do="lower optimizer.learning_rate, choose data that moves, or use latent_action.quantizer.kind=fsq",
            )

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """On held-out windows and changed pixels: error with shuffled over true latents, and gain over copying in dB."""
        health = self.objective.tokenizer.quantizer.health
        found = {"perplexity_share": health.share, "unused": float(health.dead)}
        batch = self.aside
        if batch is None or batch.future is None:
            return found
        tokenizer = self.objective.tokenizer
        batch = batch.to(next(tokenizer.parameters()).device)
        assert batch.future is not None
        frames = torch.cat([batch.images[:, :, -1:], batch.future], dim=2)
        pictures, there = tokenizer.prepare(frames, batch.view_mask)
        coded = tokenizer.quantized(pictures, there)
        real = pictures[:, :, 1:].permute(0, 1, 2, 4, 5, 3)
        present = frames[:, :, :1]
        moved = (real - pictures[:, :, :1].permute(0, 1, 2, 4, 5, 3)).abs().amax(dim=-1) > CHANGED
        moved &= there[:, :, None, None, None]
        if not bool(moved.any()):
            return found
        errors = []
        for latents in (coded.latents, coded.latents.roll(batch.size // 2, 0)):
            told = tokenizer.decode(present, latents, camera=coded.camera, view_mask=batch.view_mask)
            errors.append(float((told - real).square().mean(dim=-1)[moved].mean()))
        copied = float((pictures[:, :, :1].permute(0, 1, 2, 4, 5, 3) - real).square().mean(dim=-1)[moved].mean())
        sensitivity = errors[1] / max(errors[0], 1e-12)
        if sensitivity < SENSITIVE_ENOUGH:
            warnings.warn(
                f"the decoder does not listen to the latent actions yet: error with shuffled ones is {sensitivity:.2f} times "
                "that with the true ones; if this stays, train longer, on frames further apart or on data that moves more",
                stacklevel=2,
            )
        gain = 10 * math.log10(copied / max(errors[0], 1e-12))
        return found | {"code_sensitivity": sensitivity, "gain_db": gain}

    def save(self, folder: Path, *, tensors: dict[str, Tensor], provenance: dict[str, Any]) -> None:
        prefix = "tokenizer."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        target = self.objective.target
        parts = {} if target is None else {"target": getattr(target, "features", target).__dict__.get("provenance", {})}
        windows = dict(zip(self.mixture.names, self.mixture.sizes, strict=True))
        facts = {"parts": parts, "windows": windows, "gap_seconds": self.gap_seconds}
        self.objective.tokenizer.save_pretrained(
            folder, tensors=own, provenance={**provenance, "random": False, **facts}
        )


def latent_action_mixture(config: TrainConfig) -> tuple[Mixture, Batch | None]:
    """Windows of a present and `pairs` frames to come, `gap` apart, of every dataset; with labels, some episodes apart.

    Actions are read only where some of them may be shown.
    """
    if not config.data.parts:
        raise expected("at least one dataset", got="none", do="set data.parts, e.g. `data.parts=[{root: FOLDER}]`")
    own = config.latent_action
    opened = [
        open_part(part, config.data, latent_action_windows(own, config.data.cameras)) for part in config.data.parts
    ]
    parts = [one for found, _ in opened for one in found]
    if own.labels.share:
        parts = [
            piece
            for number, part in enumerate(parts)
            for piece in split_labels(*part, share=own.labels.share, seed=[config.data.split_seed, number])
        ]
    return Mixture(parts), next((aside for _, aside in opened if aside is not None), None)


def latent_action_windows(config: LatentActionConfig, cameras: list[str]) -> WindowSpec:
    return WindowSpec(
        history=1,
        future=tuple(config.gap * (step + 1) for step in range(config.pairs)),
        chunk=config.gap * config.pairs if config.labels.share else 0,
        cameras=tuple(cameras),
        image_size=config.image_size,
    )


def split_labels(
    dataset: WindowDataset, weight: float, name: str, *, share: float, seed: list[int]
) -> list[tuple[WindowDataset, float, str]]:
    """A dataset as one whose actions stay hidden and one, of a share of its episodes, whose actions may be seen."""
    if dataset.action_dim is None:
        return [(dataset, weight, name)]
    episodes = [episode.index for episode in dataset.episodes]
    count = max(1, round(share * len(episodes)))
    if count == len(episodes):
        return [(dataset, weight, name + LABELLED)]
    chosen = set(np.random.default_rng(seed).choice(episodes, size=count, replace=False).tolist())
    places = {episode.index: place for place, episode in enumerate(dataset.store.episodes)}
    pieces = []
    for ending, kept in ((LABELLED, chosen), ("", set(episodes) - chosen)):
        where = [places[index] for index in episodes if index in kept]
        part = WindowDataset(dataset.store, dataset.spec, episodes=where, cache=dataset.cache)
        pieces.append((part, weight * len(part) / len(dataset), name + ending))
    return pieces


def fit_scales(heads: nn.Module, datasets: list[WindowDataset]) -> None:
    """Actions and states by their spread in the largest dataset that has them."""
    for name, key in (("action", "action"), ("state", "observation.state")):
        scale: Tensor = getattr(heads, f"{name}_scale")
        owners = [d for d in datasets if getattr(d, f"{name}_dim") == len(scale)]
        if owners:
            std = np.ravel(max(owners, key=len).store.statistics[key].std)
            scale.copy_(torch.as_tensor(std, dtype=torch.float32).clamp_min(1e-4))
