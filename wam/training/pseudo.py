"""Pseudo-labels: what video without labels would have been labelled with, as far as a few labelled windows can tell.

Actions are told by latent actions: a ridge regression to chunks (the pseudo-labels of VPT, Baker et al. 2022, read from latents
as LAPO's few labels are, Schmidt and Jiang 2024). States are told by the picture of the present, a ridge regression from
its coarse pixels: a fixed camera shows where the hand is, and no single picture how fast it moves. A regression gives the mean
of what looks alike, so labels are smoother than the truth and unbiased where the video resembles the labelled episodes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wam.contracts import Batch, expected
from wam.data.windows import WindowDataset
from wam.training.latents import LatentLabels

RIDGE = 0.01
"""Of the mean squared length of the inputs, added to each direction's."""
MOST = 4096
"""Windows of each dataset that are looked at, evenly spaced."""
LEAST, FOLDS = 4, 10
"""Episodes to fit, and parts that they are left out in."""
TOLD = 0.9
"""R2 from which a number of the state counts as told by the picture."""
HARDLY = 0.2
"""R2 of the best told action below which there is a warning."""
COARSE = 16
"""Pixels of a side of the pictures that states are read from."""


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """told = x @ weight + bias. r2 (outputs,): on labelled episodes left out of the fit, a tenth of them at a time, as they
    fall (tasks often come in turn)."""

    weight: Tensor
    bias: Tensor
    r2: Tensor

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, episode: Tensor) -> Ridge:
        """x (N, inputs), y (N, outputs), episode (N,) from 0 on."""
        weight, bias = _solve(x, y)
        part = torch.randperm(int(episode.max()) + 1, generator=torch.Generator().manual_seed(0))[episode] % FOLDS
        told = torch.zeros_like(y)
        for fold in part.unique():
            out = part == fold
            own_weight, own_bias = _solve(x[~out], y[~out])
            told[out] = x[out] @ own_weight + own_bias
        spread = (y - y.mean(0)).square().sum(0)
        r2 = 1 - (told - y).square().sum(0) / spread.clamp_min(1e-9)
        return cls(weight=weight.float(), bias=bias.float(), r2=r2.float())

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.to(x.device) + self.bias.to(x.device)


def _solve(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    center = x.mean(0)
    z = x - center
    penalty = RIDGE * z.square().sum(1).mean() * torch.eye(z.shape[1], dtype=z.dtype)
    weight = torch.linalg.solve(z.T @ z + penalty, z.T @ (y - y.mean(0)))
    return weight, y.mean(0) - center @ weight


class PseudoLabels:
    """Actions, and what of the state a picture tells, for the windows of a mixture that came without.

    windows: how many were fitted; action_r2: of the chunk's mean (A,); state_r2 (S,), empty where no window has a state.
    Raises WamError where fewer than four episodes have actions.
    """

    def __init__(self, latents: LatentLabels, datasets: Sequence[WindowDataset]) -> None:
        labelled = [dataset for dataset in datasets if dataset.action_dim is not None]
        rows = list(_labelled(latents, labelled))
        names = sorted({one for _, episodes in rows for one in episodes})
        if len(names) < LEAST:
            raise expected(
                f"at least {LEAST} episodes with actions to learn pseudo-labels from",
                got=len(names),
                do="label some more, or set pseudo_labels to false",
            )
        whole = torch.cat([_whole(batch) for batch, _ in rows])
        episode = torch.tensor([names.index(one) for _, episodes in rows for one in episodes])
        x = torch.cat([_latents(batch) for batch, _ in rows]).double()
        y = torch.cat([batch.action for batch, _ in rows if batch.action is not None]).double()
        self.actions = Ridge.fit(x[whole], y.flatten(1)[whole], episode[whole])
        self.action_r2 = Ridge.fit(x[whole], y.mean(1)[whole], episode[whole]).r2
        self.windows = int(whole.sum())
        self.states: Ridge | None = None
        self.state_r2 = torch.zeros(0)
        if all(dataset.state_dim is not None for dataset in labelled):
            pictures = torch.cat([_coarse(batch) for batch, _ in rows]).double()
            state = torch.cat([batch.state for batch, _ in rows if batch.state is not None]).double()
            self.states = Ridge.fit(pictures, state, episode)
            self.state_r2 = self.states.r2
        if float(self.action_r2.max()) < HARDLY:
            warnings.warn(
                "latent actions tell little of the actions (R2 of the chunk's mean at most "
                f"{float(self.action_r2.max()):.2f}); "
                "train the tokenizer on video like this, or set pseudo_labels to false",
                stacklevel=2,
            )

    def fill(self, batch: Batch) -> Batch:
        """The batch (with its latent_action) with a chunk for each row that has none of it and whose future is whole, and
        with those numbers of a missing state that its picture tells."""
        assert batch.action is not None
        assert batch.action_mask is not None
        device = batch.action.device
        bare = ~batch.action_mask.any(dim=1) & _known(batch)
        told = self.actions(_latents(batch).to(device))
        batch = batch.replace(
            action=torch.where(bare[:, None, None], told.reshape(batch.action.shape), batch.action),
            action_mask=batch.action_mask | bare[:, None],
        )
        if self.states is None or batch.state is None or batch.state_mask is None:
            return batch
        missing = ~batch.state_mask & (self.state_r2 >= TOLD).to(device)
        return batch.replace(
            state=torch.where(missing, self.states(_coarse(batch).to(device)), batch.state),
            state_mask=batch.state_mask | missing,
        )

    def __str__(self) -> str:
        def listed(values: Tensor) -> str:
            return ", ".join(f"{value:.2f}" for value in values.tolist())

        states = f"; of the state {listed(self.state_r2)}, used from {TOLD:g}" if len(self.state_r2) else ""
        return (
            f"pseudo-labels from {self.windows} labelled windows: on episodes left out, R2 of the mean action "
            f"{listed(self.action_r2)}{states}"
        )


def _labelled(
    latents: LatentLabels, datasets: Sequence[WindowDataset]
) -> Iterator[tuple[Batch, list[tuple[int, int]]]]:
    """Batches of labelled windows with their latents, and each row's (dataset, episode)."""
    for place, dataset in enumerate(datasets):
        chosen = np.unique(np.linspace(0, len(dataset) - 1, MOST).astype(int))
        for start in range(0, len(chosen), 64):
            rows = chosen[start : start + 64]
            yield latents.label(dataset.batch(rows)), [(place, dataset.episode_of(int(row))[0].index) for row in rows]


def _latents(batch: Batch) -> Tensor:
    assert batch.latent_action is not None
    return batch.latent_action.flatten(1)


def _known(batch: Batch) -> Tensor:
    assert batch.latent_action_mask is not None
    return batch.latent_action_mask.all(dim=1)


def _whole(batch: Batch) -> Tensor:
    """(B,) windows whose latents and chunk are known to the end."""
    known = _known(batch)
    return known if batch.action_mask is None else known & batch.action_mask.all(dim=1).to(known.device)


def _coarse(batch: Batch) -> Tensor:
    """(B, V * COARSE * COARSE * 3) in [0, 1]: the present of every view, averaged over blocks of pixels."""
    present = batch.images[:, :, -1].flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    return F.adaptive_avg_pool2d(present, min(COARSE, *present.shape[2:])).reshape(batch.size, -1)
