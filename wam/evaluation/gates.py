"""The world-model gates: four numbers that a model which only looks like a world model cannot pass.

(a) `action_sensitivity`  forward dynamics on play: squared error on changed pixels, shuffled actions over true ones;
    `forward_gain_db` beside it: PSNR of the same prediction minus PSNR of copying the last frame
(b) `inverse_r2_gain`     on play, where actions do not follow from the frame: R2 of the chunk's mean motion read from
    the future minus that of the policy, which does not see the future (clamped at 0)
(c) `imagine_gain_db`     futures imagined without actions on expert episodes: PSNR minus that of copying
(d) `wrong_text_success`  success in closed loop when the sentence of the other task in the same scene is given

Pure functions of arrays; `runners` asks a model for those arrays. All are pooled over windows, views and frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from wam.contracts import ActionSpace, expected
from wam.evaluation.intervals import wilson
from wam.evaluation.video_metrics import CHANGED, changed_pixels, squared_error, to_psnr

TARGETS: Mapping[str, float] = {
    "action_sensitivity": 1.8,
    "forward_gain_db": 3.0,
    "inverse_r2_gain": 0.3,
    "imagine_gain_db": 1.5,
    "wrong_text_success": 0.15,
}
"""What the ten-minute demo has to reach. Longer recipes give their own."""

PERFECT = 1e6
"""Stands for the infinite ratio of a prediction without error, which JSON could not hold."""

AT_MOST = frozenset({"wrong_text_success"})
"""The gates that want a small value."""


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One gate, measured. direction: whether `value` has to be at least or at most `target`.

    n: windows (or episodes) behind it. steps: sampling steps used, 0 where that has no meaning. detail: what else was
    measured on the way. A value that is not finite never passes.
    """

    name: str
    value: float
    target: float
    passed: bool
    n: int
    direction: Literal["at_least", "at_most"] = "at_least"
    steps: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GateResult:
        value = data.get("value")
        return cls(**{**data, "value": math.nan if value is None else float(value)})


def judge(name: str, value: float, *, n: int, target: float | None = None, steps: int = 0, **detail: Any) -> GateResult:
    """Hold a value against its target; without one given, the demo's."""
    if target is None:
        if name not in TARGETS:
            raise expected(f"a gate among {sorted(TARGETS)}", got=repr(name), do="name one of them or give a target")
        target = TARGETS[name]
    at_most = name in AT_MOST
    passed = math.isfinite(value) and (value <= target if at_most else value >= target)
    return GateResult(
        name=name,
        value=float(value),
        target=float(target),
        passed=passed,
        n=n,
        direction="at_most" if at_most else "at_least",
        steps=steps,
        detail=detail,
    )


def derangement(n: int, *, seed: int = 0) -> np.ndarray:
    """A permutation of n in which nothing keeps its place: one random cycle (Sattolo's algorithm, 1986)."""
    if n < 2:
        raise expected("at least two windows to shuffle actions between", got=n, do="evaluate on more windows")
    rng = np.random.default_rng(seed)
    order = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = int(rng.integers(0, i))
        order[i], order[j] = order[j], order[i]
    return order


def action_sensitivity(
    with_true: np.ndarray,
    with_shuffled: np.ndarray,
    real: np.ndarray,
    present: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    threshold: float = CHANGED,
    target: float | None = None,
    steps: int = 0,
) -> GateResult:
    """Gate (a). Futures (B, V, T, H, W, C) predicted with true and with shuffled actions, the real one, and the
    present frame (B, V, H, W, C), all floats in [0, 1]; valid (B, V, T) bool marks frames that exist.
    """
    where = changed_pixels(real, present[:, :, None], threshold=threshold)
    if valid is not None:
        where &= valid[..., None, None]
    true_error = squared_error(with_true, real, where=where)
    shuffled_error = squared_error(with_shuffled, real, where=where)
    if true_error > 0:
        value = min(shuffled_error / true_error, PERFECT)
    else:  # a perfect prediction, or (NaN) nothing that changed
        value = PERFECT if true_error == 0 and shuffled_error > 0 else math.nan
    return judge(
        "action_sensitivity",
        value,
        n=len(real),
        target=target,
        steps=steps,
        changed_share=float(where.mean()),
        psnr_changed_true=to_psnr(true_error),
        psnr_changed_shuffled=to_psnr(shuffled_error),
        psnr_changed_copy=to_psnr(squared_error(np.broadcast_to(present[:, :, None], real.shape), real, where=where)),
    )


def gain_over_copying(
    name: Literal["forward_gain_db", "imagine_gain_db"],
    predicted: np.ndarray,
    real: np.ndarray,
    present: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    target: float | None = None,
    steps: int = 0,
) -> GateResult:
    """Gate (c), and the figure beside gate (a). Shapes as in `action_sensitivity`; pooled over all pixels."""
    copied = np.broadcast_to(present[:, :, None], real.shape)
    mask = np.ones(real.shape[:3], bool) if valid is None else valid
    where = np.broadcast_to(mask[..., None, None], real.shape[:-1])
    model, copy = (to_psnr(squared_error(x, real, where=where)) for x in (predicted, copied))
    frames = [
        to_psnr(squared_error(predicted[:, :, t], real[:, :, t], where=where[:, :, t]))
        - to_psnr(squared_error(copied[:, :, t], real[:, :, t], where=where[:, :, t]))
        for t in range(real.shape[2])
    ]
    return judge(
        name,
        min(model - copy, 100.0) if copy < math.inf else math.nan,  # nothing moved: copying cannot be beaten
        n=len(real),
        target=target,
        steps=steps,
        psnr=model,
        psnr_copy=copy,
        gain_db_per_frame=frames,
    )


def motion_dims(space: ActionSpace, names: Sequence[str] | None = None) -> tuple[int, ...]:
    """Where the hand's motion stands among the action dimensions: the given names, else x, y (and z)."""
    wanted = tuple(names) if names else tuple(n for n in ("x", "y", "z", "dx", "dy", "dz") if n in space.names)
    if not wanted or set(wanted) - set(space.names):
        raise expected(
            f"motion dimensions among {space.names}",
            got=wanted or "none called x, y or z",
            do="name the dimensions that move the hand",
        )
    return tuple(space.names.index(n) for n in wanted)


def mean_motion(
    action: np.ndarray, dims: Sequence[int], *, mask: np.ndarray | None = None, absolute: bool = False
) -> np.ndarray:
    """A chunk's mean motion: actions (B, K, A) and mask (B, K) to (B, len(dims)).

    Absolute targets count from the chunk's first one, so that where the hand is does not pass for how it moves.
    """
    moves = action[..., list(dims)].astype(np.float64)
    if absolute:
        moves = moves - moves[:, :1]
    weight = np.ones(moves.shape[:2]) if mask is None else mask.astype(np.float64)
    return (moves * weight[..., None]).sum(1) / np.maximum(weight.sum(1), 1)[:, None]


def r2(predicted: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Coefficient of determination per column of (B, D); a column that never varies is NaN."""
    residual = np.square(predicted - real).sum(0)
    spread = np.square(real - real.mean(0)).sum(0)
    return np.where(spread > 0, 1 - residual / np.where(spread > 0, spread, 1), np.nan)


def inverse_r2_gain(
    from_future: np.ndarray,
    from_policy: np.ndarray,
    real: np.ndarray,
    *,
    dims: Sequence[int],
    mask: np.ndarray | None = None,
    absolute: bool = False,
    target: float | None = None,
    steps: int = 0,
) -> GateResult:
    """Gate (b). Chunks (B, K, A) read from the future, planned by the policy, and real; mask (B, K)."""
    true = mean_motion(real, dims, mask=mask, absolute=absolute)
    scores = [r2(mean_motion(x, dims, mask=mask, absolute=absolute), true) for x in (from_future, from_policy)]
    # a direction that never moves in the data says nothing; all of them still: NaN, which fails
    inverse, policy = (float(np.mean(s[~np.isnan(s)])) if (~np.isnan(s)).any() else math.nan for s in scores)
    return judge(
        "inverse_r2_gain",
        inverse - max(policy, 0.0),
        n=len(real),
        target=target,
        steps=steps,
        r2_inverse=inverse,
        r2_policy=policy,
        r2_inverse_per_dim=scores[0].tolist(),
        r2_policy_per_dim=scores[1].tolist(),
    )


def wrong_text_success(
    successes: Sequence[bool] | np.ndarray, *, target: float | None = None, steps: int = 0, **detail: Any
) -> GateResult:
    """Gate (d). Whether each episode ended in success although the other task's sentence was given."""
    flags = np.asarray(successes, dtype=bool)
    if not flags.size:
        raise expected("at least one episode with the wrong sentence", got="none", do="name a pair that shares a scene")
    rate = wilson(int(flags.sum()), flags.size)
    return judge(
        "wrong_text_success",
        rate.value,
        n=flags.size,
        target=target,
        steps=steps,
        low=rate.low,
        high=rate.high,
        **detail,
    )
