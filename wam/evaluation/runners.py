"""Ask a model for what the gates need. Any object with the documented `sample` will do.

The model never gets what it is asked for: `only` hands it a batch holding the given streams and nothing else, so a
future or an action that leaks through the batch cannot pass a gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wam.contracts import ActionSpace, Batch, expected
from wam.evaluation import gates
from wam.evaluation.gates import GateResult


class WorldModel(Protocol):
    """What is asked of a model: the streams `want`ed from those `given`, in raw units.

    Returns an object with `future` (B, V, T, H, W, C) float in [0, 1] or None and `action` (B, K, A) raw units or None.
    """

    def sample(self, batch: Batch, *, given: tuple[str, ...], want: tuple[str, ...], steps: int, seed: int) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Conditionals:
    """Which streams each conditional is given."""

    forward: tuple[str, ...] = ("observation", "action")
    inverse: tuple[str, ...] = ("observation", "future")
    policy: tuple[str, ...] = ("observation", "state", "velocity", "text")
    imagine: tuple[str, ...] = ("observation", "text")


_FIELDS = {
    "observation": ("images", "view_mask", "depth", "intrinsics", "extrinsics", "embodiment"),
    "state": ("state",),
    "velocity": ("state",),
    "text": ("instruction",),
    "action": ("action", "action_mask"),
    "latent_action": ("latent_action",),
    "future": ("future", "future_mask"),
    "occupancy": ("occupancy",),
    "value": ("value",),
}


def only(batch: Batch, given: Sequence[str]) -> Batch:
    """The batch with the given streams and no others; a given stream that is missing is an error."""
    if unknown := set(given) - set(_FIELDS):
        raise expected(f"streams among {sorted(_FIELDS)}", got=sorted(unknown), do="correct the conditional")
    keep = {name for stream in given for name in _FIELDS[stream]}
    have = {*batch.tensors(), *(("instruction",) if batch.instruction else ())}
    for stream in given:
        if _FIELDS[stream][0] not in have:
            raise expected(f"windows with {stream}", got="none", do=f"evaluate on data that has {stream}")
    return batch.without(*(have - keep))


def ask(
    model: WorldModel,
    batch: Batch,
    *,
    given: tuple[str, ...],
    want: str,
    steps: int,
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Sample one stream ("future" or "action") for all windows of `batch`, a few at a time.

    The noise depends on `seed` and the window's place alone, so true and shuffled actions meet the same noise.
    """
    import torch

    given_only = only(batch, given)
    parts = []
    for start in range(0, batch.size, batch_size):
        rows = given_only[start : start + batch_size]
        with torch.no_grad():
            sample = model.sample(rows, given=given, want=(want,), steps=steps, seed=seed + start)
        part = getattr(sample, want)
        if part is None:
            raise expected(f"the model to sample {want}", got="None", do="use a model with that stream")
        parts.append(part.detach().float().cpu().numpy())
        if progress:
            progress(min(start + batch_size, batch.size), batch.size)
    result = np.concatenate(parts)
    if not np.isfinite(result).all():
        raise expected(f"finite values of {want} from the model", got="NaN or infinity", do="use an earlier checkpoint")
    return np.clip(result, 0.0, 1.0) if want == "future" else result


def frames(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """real future (B, V, T, H, W, C) and present (B, V, H, W, C) as floats in [0, 1]; valid (B, V, T) bool."""
    if batch.future is None:
        raise expected("windows with a future", got="none", do="choose a window spec with future frames")
    real = batch.future.cpu().numpy().astype(np.float32) / 255
    present = batch.images[:, :, -1].cpu().numpy().astype(np.float32) / 255
    valid = np.ones(real.shape[:3], bool)
    if batch.future_mask is not None:
        valid &= batch.future_mask.cpu().numpy().astype(bool)[:, None, :]
    if batch.view_mask is not None:
        valid &= batch.view_mask.cpu().numpy().astype(bool)[:, :, None]
    return real, present, valid


def shuffle_actions(batch: Batch, *, seed: int = 0) -> Batch:
    """The same windows with the actions of others; no window keeps its own."""
    if batch.action is None:
        raise expected("windows with actions", got="none", do="evaluate on data that has actions")
    order = gates.derangement(batch.size, seed=seed)
    mask = None if batch.action_mask is None else batch.action_mask[order]
    return batch.replace(action=batch.action[order], action_mask=mask)


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """How the gates are measured. steps: sampling steps to report; targets: where they differ from the demo's."""

    steps: tuple[int, ...] = (1, 3)
    seed: int = 0
    batch_size: int = 64
    threshold: float = gates.CHANGED
    motion: tuple[str, ...] | None = None
    targets: Mapping[str, float] | None = None
    conditionals: Conditionals = Conditionals()

    def target(self, name: str) -> float:
        return {**gates.TARGETS, **(self.targets or {})}[name]


Futures = dict[tuple[str, int], np.ndarray]
"""Sampled futures by ("forward", "shuffled" or "imagine", sampling steps), kept for the table of video metrics."""


def forward_gates(
    model: WorldModel, play: Batch, *, steps: int, settings: GateSettings, futures: Futures | None = None
) -> list[GateResult]:
    """Gate (a) and the gain over copying, from the same predictions on held-out play."""
    real, present, valid = frames(play)
    given = settings.conditionals.forward
    true, shuffled = (
        ask(model, b, given=given, want="future", steps=steps, seed=settings.seed, batch_size=settings.batch_size)
        for b in (play, shuffle_actions(play, seed=settings.seed))
    )
    if futures is not None:
        futures |= {("forward", steps): true, ("shuffled", steps): shuffled}
    return [
        gates.action_sensitivity(
            true,
            shuffled,
            real,
            present,
            valid=valid,
            threshold=settings.threshold,
            target=settings.target("action_sensitivity"),
            steps=steps,
        ),
        gates.gain_over_copying(
            "forward_gain_db",
            true,
            real,
            present,
            valid=valid,
            target=settings.target("forward_gain_db"),
            steps=steps,
        ),
    ]


def inverse_gate(
    model: WorldModel, play: Batch, space: ActionSpace, *, steps: int, settings: GateSettings
) -> GateResult:
    """Gate (b) on held-out play."""
    if play.action is None:
        raise expected("play windows with actions", got="none", do="evaluate on data that has actions")
    from_future, from_policy = (
        ask(model, play, given=given, want="action", steps=steps, seed=settings.seed, batch_size=settings.batch_size)
        for given in (settings.conditionals.inverse, settings.conditionals.policy)
    )
    return gates.inverse_r2_gain(
        from_future,
        from_policy,
        play.action.cpu().numpy(),
        dims=gates.motion_dims(space, settings.motion),
        mask=None if play.action_mask is None else play.action_mask.cpu().numpy(),
        absolute=space.kind == "absolute",
        target=settings.target("inverse_r2_gain"),
        steps=steps,
    )


def imagine_gate(
    model: WorldModel, expert: Batch, *, steps: int, settings: GateSettings, futures: Futures | None = None
) -> GateResult:
    """Gate (c) on held-out expert episodes."""
    real, present, valid = frames(expert)
    imagined = ask(
        model,
        expert,
        given=settings.conditionals.imagine,
        want="future",
        steps=steps,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )
    if futures is not None:
        futures["imagine", steps] = imagined
    return gates.gain_over_copying(
        "imagine_gain_db",
        imagined,
        real,
        present,
        valid=valid,
        target=settings.target("imagine_gain_db"),
        steps=steps,
    )


def evaluate_gates(
    model: WorldModel,
    *,
    play: Batch,
    expert: Batch,
    space: ActionSpace,
    settings: GateSettings | None = None,
    wrong_text: Sequence[GateResult] = (),
    futures: Futures | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[GateResult]:
    """All gates at every number of sampling steps; `wrong_text` results (from `closed_loop`) are appended.

    futures: a dictionary that receives what was sampled, for `video_table`.
    """
    settings = settings or GateSettings()
    results: list[GateResult] = []
    for steps in settings.steps:
        if progress:
            progress(f"gates at {steps} sampling step{'s' if steps > 1 else ''}")
        results += forward_gates(model, play, steps=steps, settings=settings, futures=futures)
        results.append(inverse_gate(model, play, space, steps=steps, settings=settings))
        results.append(imagine_gate(model, expert, steps=steps, settings=settings, futures=futures))
    return [*results, *wrong_text]


def gate_figures(results: Sequence[GateResult]) -> dict[str, float]:
    """Figures for `summary.json`: each gate under its plain name (the worst over sampling steps) and per step count."""
    figures: dict[str, float] = {}
    for result in results:
        worst = np.minimum if result.direction == "at_least" else np.maximum  # both keep NaN, unlike min and max
        figures[result.name] = float(worst(figures.get(result.name, result.value), result.value))
        if result.steps:
            figures[f"{result.name}_{result.steps}_steps"] = result.value
    return figures
