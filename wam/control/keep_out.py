"""Places where the hand may not go, as a cost that steers a chunk around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from wam.contracts import expected
from wam.model.steering import Cost
from wam.model.wam import Sample

Side = Literal["-x", "-y", "-z", "+x", "+y", "+z"]
SIDES: tuple[Side, ...] = get_args(Side)
"""Of a box, in the world's axes."""

BACK = 2.5
"""How much farther a side across the motion may lie before giving way means to stop: a hand that stops does not get past."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """low, high: opposite corners (3,), metres in the world."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __post_init__(self) -> None:
        if any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise expected("a box whose low corner is below its high one", got=(self.low, self.high), do="swap them")

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Which points (..., 3) lie inside: (...) bool."""
        return np.asarray(((points > np.array(self.low)) & (points < np.array(self.high))).all(-1))


@dataclass(frozen=True, kw_only=True)
class LinearMotion:
    """Where displacements take a hand that lags behind them: each axis by itself, linear in the chunk and in how the hand
    moves now. weights (3, K, K + 1): of its K first actions and its velocity, on where it is after each step."""

    weights: np.ndarray

    @classmethod
    def fit(cls, ways: np.ndarray, actions: np.ndarray, velocity: np.ndarray) -> LinearMotion:
        """ways (N, K + 1, 3): of the hand, from the present on; actions (N, K, A), whose first three are displacements;
        velocity (N, 3) at the present. By least squares; a step depends on no later action."""
        count, steps = actions.shape[:2]
        if count < 4 * steps or (actions[..., :3].std((0, 1)) < 1e-3).any():
            raise expected(
                f"at least {4 * steps} chunks that move along every axis", got=f"{count}", do="give some of random play"
            )
        weights = np.zeros((3, steps, steps + 1))
        moved = ways[:, 1:] - ways[:, :1]
        for axis in range(3):
            for step in range(steps):
                known = np.column_stack([actions[:, : step + 1, axis], velocity[:, axis]])
                found = np.linalg.lstsq(known, moved[:, step, axis], rcond=None)[0]
                weights[axis, step, : step + 1], weights[axis, step, -1] = found[:-1], found[-1]
        return cls(weights=weights)

    def way(self, start: Tensor, velocity: Tensor, actions: Tensor) -> Tensor:
        """(B, K, 3) from start (B, 3), velocity (B, 3) and actions (B, K, A), with gradients."""
        weights = torch.as_tensor(self.weights, dtype=actions.dtype, device=actions.device)
        pushed = torch.einsum("dks,bsd->bkd", weights[..., :-1], actions[..., :3])
        return start[:, None] + pushed + weights[..., -1].T[None] * velocity[:, None]


def keep_out(
    boxes: list[Box],
    motion: LinearMotion,
    start: Tensor,
    velocity: Tensor,
    *,
    margin: float = 0.01,
    sides: Sequence[Side] | None = None,
) -> Cost:
    """A cost in metres: how far the hand's way must give to leave its box, margin included, to the side that is named, or to
    the nearest one that is neither below nor, unless there is no time for another, against its motion.

    boxes, sides: one for each row; start, velocity (B, 3): of the hand now. To keep to a side for an episode, name it:
    `wam.control.passing.outer_side`. Then there is no way past on the other side, and the box casts a wedge towards the hand,
    as far as it needs to swing out: a hand with no room for that slows down, where it would have cut the corner.
    """
    low = torch.tensor([box.low for box in boxes], dtype=start.dtype, device=start.device) - margin
    high = torch.tensor([box.high for box in boxes], dtype=start.dtype, device=start.device) + margin

    def cost(sample: Sample) -> Tensor:
        if sample.action is None:
            raise expected("a sample with an action", got="none", do="want the action")
        way = motion.way(start, velocity, sample.action)
        if sides is not None:
            return _missed(way, start, low, high, [SIDES.index(side) for side in sides]).sum(-1)
        inside = ((way > low[:, None]) & (way < high[:, None])).all(-1)
        out = torch.cat([way - low[:, None], high[:, None] - way], dim=-1) * inside[..., None]  # (B, K, 6) to each side
        rows = torch.arange(len(way), device=way.device)
        dear, along = torch.ones_like(out[:, 0]), (way[:, -1] - start).detach().abs().argmax(-1)
        dear[rows, along] = dear[rows, along + 3] = BACK
        dear[:, 2] = torch.inf  # below lies the table
        side = (out.amax(1).detach() * dear).nan_to_num(torch.inf, torch.inf).argmin(-1)
        return out[rows, :, side].sum(-1)

    return cost


def _missed(way: Tensor, start: Tensor, low: Tensor, high: Tensor, sides: list[int]) -> Tensor:
    """(B, K): how far points of ways (B, K, 3) are from where they would pass boxes, low and high (B, 3), on their sides."""
    rows, side = torch.arange(len(way), device=way.device), torch.tensor(sides, device=way.device)
    out = side % 3  # the axis along which it gives way
    moved = (way[:, -1] - start).detach()[:, :2].abs()
    moved[rows[out < 2], out[out < 2]] = -1
    along = moved.argmax(1)  # the level axis along which it comes
    third = 3 - out - along
    forwards = ((way[:, -1] - start)[rows, along] > 0)[:, None]

    def of(axis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return way[rows, :, axis], low[rows, axis, None], high[rows, axis, None]

    x, least, most = of(out)
    deep = torch.where((side < 3)[:, None], x - least, most - x)
    x, least, most = of(along)
    before = torch.where(forwards, least - x, x - most)
    past = torch.where(forwards, x >= most, x <= least)
    x, least, most = of(third)
    level = (x > least) & (x < most)
    return (deep - before.clamp_min(0)).clamp_min(0) * (level & ~past)
