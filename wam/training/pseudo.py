"""Pseudo-labels: what video without labels would have been labelled with, as far as a few labelled episodes can tell.

Actions are told by latent actions: a ridge regression from what the tokenizer reads between two frames to the actions from
the one to the other (the pseudo-labels of VPT, Baker et al. 2022, read from latents as by LAPO's few labels, Schmidt and
Jiang 2024). Every moment lies between many such pairs; their mean is its action. States are told by the picture of the
moment, a ridge regression from its coarse pixels: a fixed camera shows where the hand is, and no single picture how fast
it moves. A regression gives the mean of what looks alike, so labels are smoother than the truth and unbiased where the
video resembles the labelled episodes.
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
"""Of the mean squared length of the inputs, added to each direction's sum of squares."""
LEAST, FOLDS = 4, 10
"""Labelled episodes to fit, and parts that they are left out in."""
TOLD = 0.9
"""R2 from which a number of the state counts as told by the picture."""
HARDLY = 0.2
"""R2 of the best told action below which there is a warning."""
COARSE = 16
"""Pixels of a side of the pictures that states are read from."""
AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """told = x @ weight + bias. told (N, outputs), of the labelled episodes: each by the fit of others, a tenth of them left
    out at a time, as they fall (tasks often come in turn)."""

    weight: Tensor
    bias: Tensor
    told: Tensor

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
        return cls(weight=weight, bias=bias, told=told)

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def _solve(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    center = x.mean(0)
    z = x - center
    penalty = RIDGE * z.square().sum(1).mean() * torch.eye(z.shape[1], dtype=z.dtype)
    weight = torch.linalg.solve(z.T @ z + penalty, z.T @ (y - y.mean(0)))
    return weight, y.mean(0) - center @ weight


def r2(told: Tensor, true: Tensor) -> Tensor:
    """(outputs,) of (N, outputs)."""
    spread = (true - true.mean(0)).square().sum(0)
    return 1 - (told - true).square().sum(0) / spread.clamp_min(1e-9)


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """What the labelled datasets of a mixture teach about the others.

    span: actions that a pair of frames tells. windows: how many were fitted. action_r2 (A,): of the mean action over a span, on
    episodes left out of the fit; state_r2 (S,): of each number of the state, empty where a labelled dataset has none.
    """

    latents: LatentLabels
    span: int
    actions: Ridge
    states: Ridge | None
    windows: int
    action_r2: Tensor
    state_r2: Tensor

    @classmethod
    def fit(cls, latents: LatentLabels, datasets: Sequence[WindowDataset]) -> PseudoLabels:
        """Raises WamError where fewer than four episodes have actions."""
        labelled = [dataset for dataset in datasets if dataset.action_dim is not None]
        count = sum(len(dataset.episodes) for dataset in labelled)
        if count < LEAST:
            raise expected(
                f"at least {LEAST} episodes with actions to learn pseudo-labels from",
                got=count,
                do="label some more, or set pseudo_labels to false",
            )
        span = latents.offsets[-1]
        read = [_read(latents, dataset) for dataset in labelled]
        x, pictures = (torch.cat(parts) for parts in zip(*read, strict=True))
        whole = torch.from_numpy(np.concatenate([dataset.left >= span for dataset in labelled]))
        y = torch.from_numpy(np.concatenate([dataset.actions_ahead(span) for dataset in labelled])).double()
        episode = torch.from_numpy(_numbered([dataset.owner for dataset in labelled]))
        actions = Ridge.fit(x[whole], y[whole].flatten(1), episode[whole])
        dim = y.shape[2]
        action_r2 = r2(actions.told.reshape(-1, span, dim).mean(1), y[whole].mean(1))
        if float(action_r2.max()) < HARDLY:
            warnings.warn(
                f"latent actions tell little of the actions (R2 of their mean at most {float(action_r2.max()):.2f}); train the "
                "tokenizer on video like this, or set pseudo_labels to false",
                stacklevel=2,
            )
        states, state_r2 = None, torch.zeros(0)
        if all(dataset.state_dim is not None for dataset in labelled):
            state = torch.from_numpy(np.concatenate([dataset.states() for dataset in labelled])).double()
            states = Ridge.fit(pictures, state, episode)
            state_r2 = r2(states.told, state)
        return cls(
            latents=latents,
            span=span,
            actions=actions,
            states=states,
            windows=int(whole.sum()),
            action_r2=action_r2,
            state_r2=state_r2,
        )

    def label(self, dataset: WindowDataset, *, states: bool = True) -> None:
        """Give a dataset without actions those that it would have had, with `states` also the numbers of it that pictures tell.
        Episodes no longer than the span stay without."""
        x, pictures = _read(self.latents, dataset)
        told = self.actions(x).reshape(len(x), self.span, -1).float().numpy()
        total, seen = np.zeros((len(x), told.shape[2]), np.float32), np.zeros(len(x), np.int64)
        for row in np.flatnonzero(dataset.left >= self.span):
            total[row : row + self.span] += told[row]
            seen[row : row + self.span] += 1
        last = np.flatnonzero(dataset.left == 0)  # no pair tells what is done at an episode's last frame
        total[last], seen[last] = total[last - 1], seen[last - 1] * (dataset.left[last - 1] == 1)
        dataset.give_actions(total / np.maximum(seen, 1)[:, None], known=seen > 0)
        if states and self.states is not None and dataset.state_dim is None:
            dataset.give_states(self.states(pictures).float().numpy(), known=(self.state_r2 >= TOLD).numpy())

    def __str__(self) -> str:
        def listed(values: Tensor) -> str:
            return ", ".join(f"{value:.2f}" for value in values.tolist())

        states = f"; of the state {listed(self.state_r2)}, used from {TOLD:g}" if len(self.state_r2) else ""
        return (
            f"pseudo-labels from {self.windows} labelled windows: on episodes left out, R2 of the mean action "
            f"{listed(self.action_r2)}{states}"
        )


def _read(latents: LatentLabels, dataset: WindowDataset) -> tuple[Tensor, Tensor]:
    """Of every window: latent actions (N, K * A), which mean nothing where the future is not whole, and the coarse present."""
    parts = [(_flat(batch), _coarse(batch)) for batch in _batches(latents, dataset)]
    x, pictures = (torch.cat(kind).double() for kind in zip(*parts, strict=True))
    return x, pictures


def _batches(latents: LatentLabels, dataset: WindowDataset) -> Iterator[Batch]:
    for start in range(0, len(dataset), AT_ONCE):
        yield latents.label(dataset.batch(range(start, min(start + AT_ONCE, len(dataset)))))


def _flat(batch: Batch) -> Tensor:
    assert batch.latent_action is not None
    return batch.latent_action.flatten(1)


def _coarse(batch: Batch) -> Tensor:
    """(B, V * COARSE * COARSE * 3) in [0, 1]: the present of every view, averaged over blocks of pixels."""
    present = batch.images[:, :, -1].flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    return F.adaptive_avg_pool2d(present, min(COARSE, *present.shape[2:])).reshape(batch.size, -1)


def _numbered(owners: Sequence[np.ndarray]) -> np.ndarray:
    """Episodes of several datasets, numbered through."""
    found, first = [], 0
    for owner in owners:
        found.append(owner + first)
        first += int(owner.max()) + 1
    return np.concatenate(found)
