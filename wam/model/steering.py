"""Steering: a cost on actions, or on what they are foreseen to do, moves the sample while it is denoised.

    def stay_low(sample):  # (B,), 0 where nothing is wrong
        return (sample.action[..., 2] - 0.5).clamp(min=0).sum(1)
    chunk = model.policy(batch, steering=Steering(cost=stay_low)).action

At every step the clean chunk that the network has in mind is moved down the cost's gradient, and denoising goes on from there,
so the last step's chunk has been moved too. A cost of imagined frames or voxels reaches the action through the world
model. Source of the idea: value maps and keypoint costs that steer planning (VoxPoser, Huang et al. 2023; ReKep, Huang et
al. 2024), and guidance on the clean estimate (Chung et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wam.contracts import expected

if TYPE_CHECKING:
    from wam.model.wam import Sample

Cost = Callable[["Sample"], Tensor]


def summed(*costs: Cost) -> Cost:
    """Several costs at once. A weight is a function of one line, as any cost is: `lambda sample: 3 * near(sample)`."""

    def cost(sample: Sample) -> Tensor:
        return torch.stack([one(sample) for one in costs]).sum(0)

    return cost


@dataclass(frozen=True, kw_only=True)
class Steering:
    """cost: of each row (B,), differentiable by torch, 0 where nothing is wrong. imagine: the sample it is given also holds
    the future, and the occupancy of a model that has voxels, foreseen for the action; each step of descent then costs a pass of
    the world model. steps: of descent, at most, for each step of denoising. reach: how far one of them moves the entry of the
    chunk that the cost depends on most, in units in which an action's usual range is -1 to 1."""

    cost: Cost
    imagine: bool = False
    steps: int = 12
    reach: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.reach <= 0:
            raise expected("steering of at least one step and a reach above 0", got=(self.steps, self.reach), do="mend")


def descend(action: Tensor, foresee: Callable[[Tensor], Sample], steering: Steering) -> Tensor:
    """Normalised chunks (B, K, A), moved until their cost is 0 or the steps are used up. foresee: a chunk's Sample.

    Raises WamError if the cost is not one number for each row, not finite, or does not depend on the action.
    """
    for _ in range(steering.steps):
        with torch.enable_grad():
            tried = action.detach().requires_grad_()
            cost = steering.cost(foresee(tried))
            if cost.shape != tried.shape[:1] or not torch.isfinite(cost).all():
                raise expected(
                    f"a finite cost for each of {len(tried)} rows",
                    got=f"shape {tuple(cost.shape)}, finite: {bool(torch.isfinite(cost).all())}",
                    do="sum it over steps and dimensions, and guard divisions and roots",
                )
            if not cost.requires_grad:
                raise expected(
                    "a cost that depends on the action",
                    got="one that does not",
                    do="compute it by torch from sample.action, or from sample.occupancy or sample.future with imagine=True",
                )
            if not (cost > 0).any():
                return action
            (slope,) = torch.autograd.grad(cost.sum(), tried)
        steepest = slope.abs().amax((1, 2), keepdim=True)
        step = steering.reach * slope / steepest.clamp_min(1e-12)
        action = torch.where((cost > 0)[:, None, None], action - step, action)
    return action
