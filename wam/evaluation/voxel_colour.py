"""How well the colours that a model gives voxels agree with the true ones, on the surface of what is really there.

An error is the mean difference of red, green and blue, each in [0, 1]. Beside the model's stand those of what needs no
pictures: the mean colour of the training data, each voxel's own mean there, and at frames to come the true present's
colour, the voxel's mean where the present has none. Where labels say what each voxel is, so is the share of each that is found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wam.contracts import expected
from wam.data.labels import VoxelLabels
from wam.evaluation.figures import Measured
from wam.geometry.surface import KINDS

OTHER = 0.1
"""A voxel's colour has changed if it differs by so much from the present's, or if the present has none there."""


@dataclass(frozen=True, kw_only=True)
class UsualColours:
    """Of training frames: mean (3,) of every coloured voxel, and each (X, Y, Z, 3) of its own, in [0, 1]; where a voxel never
    has a colour, the mean of all."""

    mean: Tensor
    each: Tensor

    @classmethod
    def of(cls, labels: VoxelLabels, *, batch: int = 64) -> UsualColours:
        """Raises WamError where no voxel has a colour."""
        total, counts = np.zeros((*labels.shape, 3)), np.zeros((*labels.shape, 1))
        for first in range(0, len(labels), batch):
            painted = labels.colours(np.arange(first, min(first + batch, len(labels))))
            total += painted[..., :3].sum(0, dtype=np.int64)
            counts += (painted[..., 3:] > 0).sum(0)
        if not counts.any():
            raise expected("labels in which some voxels have a colour", got="none", do="label the dataset anew")
        mean = total.sum((0, 1, 2)) / counts.sum()
        each = np.where(counts > 0, total / np.maximum(counts, 1), mean)
        return cls(mean=torch.from_numpy(mean / 255).float(), each=torch.from_numpy(each / 255).float())


def colour_error(said: Tensor, truth: Tensor, where: Tensor | None = None) -> float:
    """said (N, X, Y, Z, 3) in [0, 1]; truth (N, X, Y, Z, 4) uint8, whose colour is known where its last number is not 0; where
    (N, X, Y, Z) bool: of these alone. nan where no colour is known."""
    known = truth[..., 3] > 0 if where is None else where & (truth[..., 3] > 0)
    if not known.any():
        return float("nan")
    return float((said.expand(*truth.shape[:-1], 3)[known] - truth[known][:, :3] / 255).abs().mean())


def changed_colours(then: Tensor, now: Tensor) -> Tensor:
    """(N, X, Y, Z) bool: where `then` (N, X, Y, Z, 4) uint8 has a colour that `now` has not."""
    apart = (then[..., :3].float() - now[..., :3].float()).abs().mean(-1) / 255
    return (then[..., 3] > 0) & ((now[..., 3] == 0) | (apart > OTHER))


def add_colours(found: Measured, truth: Tensor, said: Tensor, usual: UsualColours) -> None:
    """truth (N, 1 + T, X, Y, Z, 4) uint8 as `Batch.occupancy_colour`; said (N, 1 + T, X, Y, Z, 3) uint8. Of the present and of
    the last frame to come."""
    n, present = len(truth), truth[:, 0]
    found.add("colour_error_present", colour_error(said[:, 0] / 255, present), n)
    found.add("colour_error_present_mean", colour_error(usual.mean, present), n)
    found.add("colour_error_present_usual", colour_error(usual.each, present), n)
    if truth.shape[1] == 1:
        return
    last, ahead = truth[:, -1], said[:, -1] / 255
    copied = torch.where(present[..., 3:] > 0, present[..., :3] / 255, usual.each)
    found.add("colour_error_future", colour_error(ahead, last), n)
    found.add("colour_error_future_mean", colour_error(usual.mean, last), n)
    found.add("colour_error_future_copied", colour_error(copied, last), n)
    other = changed_colours(last, present)
    found.add("colour_error_changed", colour_error(ahead, last, other), n)
    found.add("colour_error_changed_copied", colour_error(copied, last, other), n)


def add_kinds(found: Measured, truth: Tensor, filled: Tensor) -> None:
    """Of the surface of robot, objects and ground, as far as there is any: the share that is said to be filled. truth
    (N, 1 + T, X, Y, Z, 4) uint8; filled (N, 1 + T, X, Y, Z) bool, the model's."""
    slots = {"present": 0, "future": -1} if truth.shape[1] > 1 else {"present": 0}
    for when, slot in slots.items():
        for name, kind in KINDS.items():
            surface = truth[:, slot, ..., 3] == kind
            if surface.any():
                found.add(f"found_{name}_{when}", float(filled[:, slot][surface].float().mean()), len(truth))
