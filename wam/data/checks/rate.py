"""Rates: timestamps against fps, actions held for several frames, actions that run faster or slower than the states."""

from __future__ import annotations

import numpy as np

from wam.contracts import ActionSpace
from wam.data.checks.columns import Column
from wam.data.checks.finding import Finding, finding, in_episodes
from wam.data.checks.lag import Relation, motion

_STRETCHES = (1 / 5, 1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4, 5)


def check_timestamps(timestamps: Column, *, fps: float) -> list[Finding]:
    """timestamps {episode: (T,)} in seconds. Steps must be 1 / fps."""
    guilty = {}
    for episode, times in timestamps.items():
        steps = np.diff(np.ravel(times).astype(np.float64))
        if len(steps) and np.abs(steps - 1 / fps).max() > max(1e-3, 0.02 / fps):
            guilty[episode] = steps
    if not guilty:
        return []
    steps = np.concatenate(list(guilty.values()))
    sentence = (
        f"timestamps step by {np.median(steps):.4f} s (from {steps.min():.4f} to {steps.max():.4f}) where fps "
        f"{fps:g} asks for "
        f"{1 / fps:.4f} in {in_episodes(list(guilty))}; resample these episodes or correct fps"
    )
    return [finding("error", "rate", "timestamp", sentence, evidence=np.median(steps), episodes=guilty)]


def check_declared_rate(space: ActionSpace, *, fps: float) -> list[Finding]:
    if abs(space.rate_hz - fps) <= 0.02 * fps:
        return []
    sentence = (
        f"the action space says {space.rate_hz:g} actions a second, the dataset has {fps:g} rows a second; correct "
        "the one "
        "that is wrong or resample"
    )
    return [finding("error", "rate", "action", sentence, evidence=space.rate_hz / fps)]


def check_held_actions(actions: Column, *, gripper: int | None = None) -> list[Finding]:
    """Actions that change only at every k-th row, so recorded at a lower rate. Irregular holds are no fault."""
    held: dict[int, list[int]] = {}
    for episode, value in actions.items():
        moving = np.delete(value, [] if gripper is None else [gripper], axis=1)
        changed = np.flatnonzero((np.diff(moving, axis=0) != 0).any(axis=1)) + 1
        if len(changed) < 8 or len(changed) > 0.6 * len(value):
            continue
        for k in range(10, 1, -1):
            classes = np.bincount(changed % k, minlength=k)
            if classes.max() >= 0.95 * len(changed) and len(changed) >= 0.5 * len(value) / k:
                held.setdefault(k, []).append(episode)
                break
    found = []
    for k, episodes in held.items():
        sentence = (
            f"actions change only at every {k}th row in {in_episodes(episodes)}: they were recorded at 1/{k} of the "
            "dataset's "
            f"rate; keep every {k}th row, or interpolate the actions"
        )
        found.append(finding("warning", "rate", "action", sentence, evidence=k, episodes=episodes))
    return found


def check_stretch(relation: Relation, states: Column, actions: Column) -> list[Finding]:
    """The path that the actions describe against that of the states, at several speeds; the fault is one speed in most
    episodes that fits far better than the same speed."""
    votes: dict[float, list[int]] = {}
    judged = 0
    for episode, action in actions.items():
        if episode not in states or len(action) < 30:
            continue
        fits = {r: _fit(relation, states[episode], action, r) for r in _STRETCHES}
        best = max(fits, key=lambda r: fits[r])
        judged += 1
        if best != 1 and fits[best] > 0.95 and fits[1] < 0.8:
            votes.setdefault(best, []).append(episode)
    found = []
    for stretch, episodes in votes.items():
        if len(episodes) >= max(2, 0.3 * judged) or len(episodes) == judged == 1:
            told = (
                f"one action row covers {stretch:g} state rows"
                if stretch > 1
                else f"{1 / stretch:g} action rows cover one state row"
            )
            sentence = (
                f"{told} in {in_episodes(episodes)} (their paths agree only so, correlation "
                f"{min(_fit(relation, states[e], actions[e], stretch) for e in episodes):.2f}); bring actions and "
                "states to one rate"
            )
            found.append(finding("error", "rate", "action", sentence, evidence=stretch, episodes=episodes))
    return found


def _fit(relation: Relation, state: np.ndarray, action: np.ndarray, stretch: float) -> float:
    """Mean correlation over the pairs of path(action)[t] with state[t * stretch]."""
    rows = np.arange(min(len(action), int((len(state) - 1) / stretch) + 1))
    if len(rows) < 10:
        return 0.0
    scores = []
    for a, s, sign in relation.pairs:
        path = action[rows, a] if relation.kind == "absolute" else np.cumsum(action[:, a])[rows]
        other = state[np.round(rows * stretch).astype(int), s]
        if path.std() > 1e-9 and other.std() > 1e-9:
            scores.append(sign * np.corrcoef(path, other)[0, 1])
    return float(np.mean(scores)) if scores else 0.0


def check_step_sizes(relation: Relation, states: Column, actions: Column) -> list[Finding]:
    """Delta actions move the state by one factor; an episode with 1.6 times that factor has another rate or unit."""
    if relation.kind != "delta":
        return []
    lag = max(relation.lag, 0)
    ratios: dict[int, list[float]] = {}
    for a, s, sign in relation.pairs:
        factors = {}
        for episode, action in actions.items():
            if episode in states and len(action) >= 12 + lag:
                step = motion(states[episode])[lag:, s]
                factor, correlation = _slope(action[: len(step), a], sign * step)
                if correlation > 0.7:
                    factors[episode] = factor
        if len(factors) >= 4:
            middle = float(np.median(list(factors.values())))
            for episode, factor in factors.items():
                ratios.setdefault(episode, []).append(factor / middle)
    # one dimension alone may be held up by a contact
    odd = {e: max(r) for e, r in ratios.items() if len(r) >= min(2, len(relation.pairs)) and min(r) > 1.6}
    odd |= {e: 1 / min(r) for e, r in ratios.items() if len(r) >= min(2, len(relation.pairs)) and max(r) < 1 / 1.6}
    if not odd:
        return []
    worst = max(odd.values())
    sentence = (
        f"the same action moves the state up to {worst:.1f} times more or less in {in_episodes(sorted(odd))} than in "
        "the "
        "others; these were recorded at another rate or in other units: resample, rescale or drop them"
    )
    return [finding("warning", "rate", "action", sentence, evidence=worst, episodes=sorted(odd))]


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(slope, correlation) of y over x."""
    x, y = x - x.mean(), y - y.mean()
    if x.std() < 1e-9 or y.std() < 1e-12:
        return 0.0, 0.0
    return float(x @ y / (x @ x)), float(x @ y / np.sqrt((x @ x) * (y @ y)))
