"""Latent actions as labels: a frozen tokenizer reads off each window what happens between its present and its future,
and a few windows with actions tell which actions that is (VPT's pseudo-labels, read from latents as in LAPO)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.data.windows import WindowDataset
from wam.model.config import ModelConfig
from wam.tokenizers.latent_action import LatentActionTokenizer
from wam.training.state import newest_checkpoint


class LatentLabels:
    """Gives batches their `latent_action`.

    offsets: the future frames it looks at, 1, 2, ... times the tokenizer's gap after the present. length, dim: K and A.
    """

    def __init__(self, folder: str | Path, model: ModelConfig) -> None:
        self.tokenizer = LatentActionTokenizer.from_pretrained(newest_checkpoint(Path(folder)))
        if self.tokenizer.provenance.get("random"):
            raise expected(
                f"a trained tokenizer in {folder}", got="random weights", do="train it with stage=latent-action"
            )
        own = self.tokenizer.config
        self.offsets: list[int] = []
        while own.gap * (len(self.offsets) + 1) in model.future:
            self.offsets.append(own.gap * (len(self.offsets) + 1))
        if not self.offsets:
            raise expected(
                f"a future frame {own.gap} frames after the present, as the tokenizer in {folder} was trained",
                got=f"model.future={list(model.future)}",
                do=f"set model.future=[{own.gap // 2},{own.gap}], or train a tokenizer with "
                f"latent_action.gap={model.future[-1]}",
            )
        if own.image_size != model.image_size:
            raise expected(
                f"frames of {own.image_size}, as the tokenizer in {folder} was trained",
                got=model.image_size,
                do="set model.image_size",
            )
        self._places = [list(model.future).index(offset) for offset in self.offsets]
        self.length, self.dim = len(self.offsets) * own.tokens, self.tokenizer.quantizer.dim
        nn.Module.requires_grad_(self.tokenizer, False)

    @torch.no_grad()
    def label(self, batch: Batch) -> Batch:
        """The batch with latent_action (B, K, A), and where it is known: where the window's future is."""
        if batch.future is None:
            raise expected("windows with a future", got="none", do="set model.future")
        frames = torch.cat([batch.images[:, :, -1:], batch.future[:, :, self._places]], dim=2)
        self.tokenizer.to(frames.device)
        found = self.tokenizer.encode(frames, view_mask=batch.view_mask)
        there = torch.ones(frames.shape[0], len(self.offsets), dtype=torch.bool, device=frames.device)
        if batch.future_mask is not None:
            there = batch.future_mask[:, self._places].cumprod(dim=1).bool()
        return batch.replace(
            latent_action=found.latents.float(),
            latent_action_mask=there.repeat_interleave(self.tokenizer.config.tokens, dim=1),
        )


class PseudoActions:
    """Chunks of actions for windows that came without: a ridge regression from latents to chunks, fitted on the windows
    of the mixture that have both.

    A regression gives the mean of the chunks that look alike, so labels are smoother than true actions and unbiased where
    the video resembles the labelled episodes. r2: of the chunk's mean action, by dimension (A,), on labelled episodes
    left out of the fit, a tenth of them at a time, as they fall (tasks often come in turn); windows: how many were fitted.

    Raises WamError where fewer than four episodes have actions.
    """

    RIDGE = 0.01
    """Added to the unit variance of each number of the latents."""
    MOST = 4096
    """Windows of each dataset that are looked at, evenly spaced."""
    LEAST, FOLDS = 4, 10
    """Episodes to fit, and parts that they are left out in."""

    def __init__(self, latents: LatentLabels, datasets: Sequence[WindowDataset]) -> None:
        read, chunks, episodes = [], [], []
        for place, dataset in enumerate(datasets):
            if dataset.action_dim is None:
                continue
            chosen = np.unique(np.linspace(0, len(dataset) - 1, self.MOST).astype(int))
            for start in range(0, len(chosen), 64):
                rows = chosen[start : start + 64]
                batch = latents.label(dataset.batch(rows))
                known = _whole(batch)
                read.append(_flat(batch)[known])
                assert batch.action is not None
                chunks.append(batch.action[known])
                owners = [(place, dataset.episode_of(int(row))[0].index) for row in rows]
                episodes += [owner for owner, there in zip(owners, known.tolist(), strict=True) if there]
        names = sorted(set(episodes))
        if len(names) < self.LEAST:
            raise expected(
                f"at least {self.LEAST} episodes with actions to learn pseudo-labels from",
                got=len(names),
                do="label some more, or set pseudo_labels to false",
            )
        x, y = torch.cat(read).double(), torch.cat(chunks).double()
        part = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)) % self.FOLDS
        owner = torch.tensor([names.index(episode) for episode in episodes])
        self.windows = len(x)
        self.r2 = _left_out_r2(x, y, part[owner], ridge=self.RIDGE)
        self._fit = _ridge(x, y, ridge=self.RIDGE)
        if float(self.r2.max()) < 0.2:
            warnings.warn(
                f"latent actions tell little of the actions (R2 of the chunk's mean at most {float(self.r2.max()):.2f}); "
                "train the tokenizer on video like this, or set pseudo_labels to false",
                stacklevel=2,
            )

    def fill(self, batch: Batch) -> Batch:
        """The batch (with its latent_action) with a chunk for each row that has none of it and whose future is whole."""
        assert batch.action is not None
        assert batch.action_mask is not None
        bare = ~batch.action_mask.any(dim=1) & _latents_known(batch)
        weight, bias = (t.to(batch.action.device, torch.float32) for t in self._fit)
        told = (_flat(batch).to(batch.action.device) @ weight + bias).reshape(batch.action.shape)
        return batch.replace(
            action=torch.where(bare[:, None, None], told, batch.action),
            action_mask=batch.action_mask | bare[:, None],
        )

    def __str__(self) -> str:
        explained = ", ".join(f"{value:.2f}" for value in self.r2.tolist())
        return f"pseudo-labels from {self.windows} labelled windows: R2 of the mean action {explained} on episodes left out"


def _flat(batch: Batch) -> Tensor:
    assert batch.latent_action is not None
    return batch.latent_action.flatten(1)


def _latents_known(batch: Batch) -> Tensor:
    assert batch.latent_action_mask is not None
    return batch.latent_action_mask.all(dim=1)


def _whole(batch: Batch) -> Tensor:
    """(B,) windows whose latents and chunk are known to the end."""
    known = _latents_known(batch)
    return known if batch.action_mask is None else known & batch.action_mask.all(dim=1).to(known.device)


def _ridge(x: Tensor, y: Tensor, *, ridge: float) -> tuple[Tensor, Tensor]:
    """Weights (latents, K * A) and bias (K * A,) of latents x (N, latents) on chunks y (N, K, A)."""
    center, scale = x.mean(0), x.std(0).clamp_min(1e-6)
    z, flat = (x - center) / scale, y.flatten(1)
    penalty = ridge * len(z) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    found = torch.linalg.solve(z.T @ z + penalty, z.T @ (flat - flat.mean(0)))
    weight = found / scale[:, None]
    return weight, flat.mean(0) - center @ weight


def _left_out_r2(x: Tensor, y: Tensor, fold: Tensor, *, ridge: float) -> Tensor:
    """(A,) R2 of the chunk's mean, each fold told by the fit of the others."""
    told = torch.zeros_like(y)
    for number in fold.unique():
        out = fold == number
        weight, bias = _ridge(x[~out], y[~out], ridge=ridge)
        told[out] = (x[out] @ weight + bias).reshape(y[out].shape)
    wrong = (told.mean(1) - y.mean(1)).square().sum(0)
    spread = (y.mean(1) - y.mean((0, 1))).square().sum(0)
    return 1 - wrong / spread.clamp_min(1e-9)
