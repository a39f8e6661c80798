"""Checks of one numeric column: numbers that are not finite, dimensions that never change, values out of range, spikes.

A column is given as {episode: (T, D)}; `names` has one name per dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wam.contracts import ActionSpace
from wam.data.checks.finding import Finding, Severity, finding, in_episodes, listed

Column = Mapping[int, np.ndarray]


def dimension_names(size: int, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The given names where there is one per dimension, else 0, 1, ..."""
    return tuple(names) if names is not None and len(names) == size else tuple(map(str, range(size)))


def check_finite(feature: str, column: Column) -> list[Finding]:
    bad = {e: np.argwhere(~np.isfinite(v)) for e, v in column.items() if not np.isfinite(v).all()}
    if not bad:
        return []
    first = next(iter(bad))
    count = sum(len(b) for b in bad.values())
    sentence = (
        f"{feature} has {count} values that are NaN or infinite in {in_episodes(list(bad))}, the first in row "
        f"{bad[first][0][0]} of episode {first}; repair or drop these episodes"
    )
    return [finding("error", "finite", feature, sentence, evidence=count, episodes=bad)]


def check_constant(feature: str, column: Column, names: Sequence[str]) -> list[Finding]:
    """Dimensions that hold one value over all episodes. A column without any motion is an error if it is the action."""
    values = finite_rows(column)
    if len(values) < 2:
        return []
    still = np.ptp(values, axis=0) <= 1e-6 * np.abs(values).max(axis=0) + 1e-12
    if not still.any():
        return []
    which = [names[i] for i in np.flatnonzero(still).tolist()]
    if still.all():
        severity: Severity = "error" if feature == "action" else "warning"
        sentence = f"{feature} never changes in {len(values)} rows; check that the right stream was recorded"
    else:
        severity = "warning" if feature == "action" else "note"
        verb = "hold" if len(which) > 1 else "holds"
        sentence = (
            f"{len(which)} of {len(names)} dimensions of {feature} ({listed(which)}) {verb} one value in all "
            f"{len(values)} rows; drop or mask them, a model learns nothing there"
        )
    return [finding(severity, "constant", feature, sentence, evidence=len(which))]


def check_stuck(feature: str, column: Column) -> list[Finding]:
    """A stream that takes several values and then holds the last for the rest, more than 90%, of an episode."""
    stuck: dict[int, float] = {}
    for episode, value in column.items():
        changes = np.flatnonzero((np.diff(value, axis=0) != 0).any(axis=1))
        if len(value) >= 30 and len(changes) >= 3 and len(np.unique(value, axis=0)) > 3:
            hold = 1 - (changes[-1] + 1) / len(value)
            if hold > 0.9:
                stuck[episode] = float(hold)
    if not stuck:
        return []
    share = max(stuck.values())
    sentence = (
        f"{feature} holds one value for the last {100 * share:.0f}% of {in_episodes(list(stuck))} after a few others; the "
        "stream broke off or was written wrongly: drop the column or record it again"
    )
    return [finding("warning", "stuck", feature, sentence, evidence=share, episodes=stuck)]


def check_range(column: Column, space: ActionSpace) -> list[Finding]:
    """Actions outside the limits of their action space, and actions that use less than 2% of them."""
    low, high = np.array(space.low), np.array(space.high)
    with np.errstate(invalid="ignore"):
        slack = 1e-3 * np.where(np.isfinite(high - low), high - low, 1.0)
    found = []
    outside = {e: (v < low - slack) | (v > high + slack) for e, v in column.items()}
    guilty = {e: o for e, o in outside.items() if o.any()}
    if guilty:
        rows = np.concatenate([o for o in outside.values()])
        dims = np.flatnonzero(rows.any(axis=0))
        values = finite_rows(column)
        extreme = max(np.abs(values[:, d]).max() for d in dims)
        sentence = (
            f"{100 * rows.any(axis=1).mean():.1f}% of actions lie outside the limits in "
            f"{listed([space.names[d] for d in dims])} "
            f"(up to {extreme:.4g}; limits {low[dims].min():g} to {high[dims].max():g}) in "
            f"{in_episodes(list(guilty))}; "
            "clip the actions or correct the action space's limits and units"
        )
        found.append(finding("error", "range", "action", sentence, evidence=rows.any(axis=1).mean(), episodes=guilty))
    values = finite_rows(column)
    span, reach = high - low, np.abs(values).max(axis=0, initial=0)
    tiny = np.isfinite(span) & (reach > 0) & (reach < 0.02 * np.maximum(np.abs(low), np.abs(high)))
    if len(values) and tiny.all():
        sentence = (
            f"actions use at most {100 * (reach / np.maximum(np.abs(low), np.abs(high))).max():.2g}% of the action "
            "space's limits; "
            "check their units (metres against normalised commands)"
        )
        found.append(finding("warning", "range", "action", sentence, evidence=reach.max()))
    return found


def check_spikes(feature: str, column: Column, names: Sequence[str]) -> list[Finding]:
    """Single rows far from both neighbours: more than 10 times the span of the middle 98%."""
    values = finite_rows(column)
    if len(values) < 50:
        return []
    span = np.subtract(*np.quantile(values, [0.99, 0.01], axis=0))
    limit = np.where(span > 0, 10 * span, np.inf)
    spikes: dict[int, np.ndarray] = {}
    for episode, value in column.items():
        if len(value) < 3:
            continue
        step = np.abs(np.diff(value, axis=0))
        lonely = (step[:-1] > limit) & (step[1:] > limit)
        if lonely.any():
            spikes[episode] = np.argwhere(lonely) + np.array([1, 0])
    if not spikes:
        return []
    episode = next(iter(spikes))
    row, dim = spikes[episode][0]
    count = sum(len(s) for s in spikes.values())
    sentence = (
        f"{feature} has {count} single-row spikes in {in_episodes(list(spikes))}, e.g. {names[dim]} = "
        f"{column[episode][row, dim]:.4g} in row {row} of episode {episode} where 98% of values span {span[dim]:.3g}; "
        "repair these rows or drop the episodes"
    )
    return [finding("error", "spikes", feature, sentence, evidence=count, episodes=spikes)]


def finite_rows(column: Column) -> np.ndarray:
    """All rows of all episodes without those that hold a NaN, (N, D)."""
    rows = np.concatenate([np.asarray(v, np.float64) for v in column.values()])
    return rows[np.isfinite(rows).all(axis=1)]
