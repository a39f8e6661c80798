"""Angles that jump by a whole turn: inside an episode, in a difference, or between episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam.data.checks.columns import Column, finite_rows
from wam.data.checks.finding import Finding, finding, in_episodes

_TURN = 2 * np.pi
_ANGLE_WORDS = ("deg", "angle", "roll", "pitch", "yaw", "rot", "euler")


def check_wraps(feature: str, column: Column, names: Sequence[str], units: Sequence[str] = ()) -> list[Finding]:
    """Radians in any dimension that stays within one turn; degrees only where a name or a unit speaks of angles."""
    values = finite_rows(column)
    if len(values) < 2:
        return []
    found = []
    for dim in range(values.shape[1]):
        name = names[dim]
        words = f"{name} {units[dim] if len(units) == len(names) else ''}".lower()
        turns = [_TURN] + ([360.0] if any(w in words for w in _ANGLE_WORDS) else [])
        for turn in turns:
            one = {e: v[:, dim] for e, v in column.items()}
            hit = _whole_turns(feature, name, one, turn) or _jumps(feature, name, one, turn)
            hit = hit or _two_sides(feature, name, one, turn)
            if hit is not None:
                found.append(hit)
                break
    return found


def _within_a_turn(values: np.ndarray, turn: float) -> bool:
    slack = 0.05 * turn
    low, high = np.nanmin(values), np.nanmax(values)
    return (-turn / 2 - slack <= low and high <= turn / 2 + slack) or (-slack <= low and high <= turn + slack)


def _jumps(feature: str, name: str, column: dict[int, np.ndarray], turn: float) -> Finding | None:
    values = np.concatenate(list(column.values()))
    if not _within_a_turn(values, turn):
        return None
    steps = {e: np.abs(np.diff(v)) for e, v in column.items()}
    usual = np.concatenate([s[np.abs(s - turn) >= turn / 6] for s in steps.values()])
    pace = float(np.quantile(usual, 0.95)) if len(usual) else 0.0
    if pace > turn / 12:
        return None  # a signal that jumps all the time is no angle
    # the turn taken off, what is left must be a step as any other: a switch between -3 and 3 is no angle either
    wrapped = {e: np.flatnonzero(np.abs(s - turn) < min(turn / 6, 4 * pace + 1e-3)) for e, s in steps.items()}
    guilty = {e: w for e, w in wrapped.items() if len(w)}
    if not guilty:
        return None
    first, count = next(iter(guilty)), sum(len(w) for w in guilty.values())
    row = int(guilty[first][0])
    size = steps[first][row]
    sentence = (
        f"{feature} dimension {name} jumps by {size:.2f}, about a whole turn, {count} times in "
        f"{in_episodes(list(guilty))} "
        f"(first between rows {row} and {row + 1} of episode {first}); use sine and cosine or a 6D rotation, or "
        "unwrap it"
    )
    return finding("warning", "wraps", feature, sentence, evidence=float(size), episodes=tuple(guilty))


def _whole_turns(feature: str, name: str, column: dict[int, np.ndarray], turn: float) -> Finding | None:
    """Differences taken without unwrapping: small values, and a few of about one turn."""
    if feature != "action":
        return None
    values = np.concatenate(list(column.values()))
    size = np.abs(values)
    near = np.abs(size - turn) < turn / 12
    if not near.any() or near.mean() > 0.05 or np.nanquantile(size[~near], 0.99) > turn / 12:
        return None
    guilty = [e for e, v in column.items() if (np.abs(np.abs(v) - turn) < turn / 12).any()]
    sentence = (
        f"{feature} dimension {name} is a difference of a whole turn ({size[near].max():.2f}) {int(near.sum())} "
        "times in "
        f"{in_episodes(guilty)}, elsewhere below {np.nanquantile(size[~near], 0.99):.2f}; wrap the differences of "
        "angles into half a turn"
    )
    return finding("error", "wraps", feature, sentence, evidence=float(size[near].max()), episodes=tuple(guilty))


def _two_sides(feature: str, name: str, column: dict[int, np.ndarray], turn: float) -> Finding | None:
    """Every episode lies near half a turn, some on the one side and some on the other: one pose with two values."""
    middles = {e: float(np.nanmedian(v)) for e, v in column.items()}
    values = np.concatenate(list(column.values()))
    if not _within_a_turn(values, turn) or min(np.abs(list(middles.values()))) < 0.41 * turn:
        return None
    upper, lower = [e for e, m in middles.items() if m > 0], [e for e, m in middles.items() if m < 0]
    if not upper or not lower or np.nanmin(values) > -0.4 * turn:
        return None
    gap = max(middles.values()) - min(middles.values())
    sentence = (
        f"{feature} dimension {name} lies near +{turn / 2:.2f} in {in_episodes(upper)} and near -{turn / 2:.2f} in "
        f"{in_episodes(lower)}, which is nearly the same angle with values {gap:.2f} apart; use sine and cosine or a "
        "6D rotation"
    )
    return finding(
        "warning",
        "wraps",
        feature,
        sentence,
        evidence=gap,
        episodes=tuple(sorted(upper if len(upper) < len(lower) else lower)),
    )
