"""Time offsets: the lag at which actions fit the motion of the state, and the motion of the state that of the images.

Conventions: action[t] is taken at frame t and moves state[t] to state[t + 1]. So the motion that an action causes is
ds[t] = state[t + 1] - state[t], and the best lag is 0, or a little more where the controller is slow, never less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wam.contracts import ActionKind
from wam.data.checks.columns import Column
from wam.data.checks.finding import Finding, finding, in_episodes

MIN_CORRELATION = 0.5
_MARGIN = 0.05
_ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Relation:
    """How actions and states go together.

    kind: whether the action itself (delta) or its change (absolute) follows the state's motion. pairs: (action
    dimension, state dimension, sign). lags (L,), curve (L,): mean correlation of the pairs at each lag.
    """

    kind: Literal["delta", "absolute"]
    pairs: tuple[tuple[int, int, int], ...]
    lags: np.ndarray
    curve: np.ndarray

    @property
    def lag(self) -> int:
        return int(self.lags[self.curve.argmax()])

    @property
    def peaked(self) -> bool:
        """Whether the curve falls on both sides of its peak, so that the peak is a lag and not a trend."""
        at = int(self.curve.argmax())
        return bool(min(np.ptp(self.curve[: at + 1]), np.ptp(self.curve[at:])) > 0.1)

    @property
    def weight(self) -> float:
        """How much of the action the relation explains: a true one holds in most dimensions."""
        return self.correlation * len(self.pairs)

    @property
    def correlation(self) -> float:
        return float(self.curve.max())


def smooth(value: np.ndarray) -> np.ndarray:
    """(T, D) averaged over three rows: jitter would hide the lag, a symmetric average does not move it."""
    padded = np.concatenate([value[:1], value, value[-1:]])
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def motion(state: np.ndarray) -> np.ndarray:
    """state (T, D) -> (T - 1, D); steps of a whole turn are brought back into half a turn."""
    step = np.diff(np.asarray(state, np.float64), axis=0)
    turned = step - np.sign(step) * 2 * np.pi
    return np.where((np.abs(turned) < 1) & (np.abs(state[1:]) < 7), turned, step)


def correlations(cause: Sequence[np.ndarray], effect: Sequence[np.ndarray], lags: Sequence[int]) -> np.ndarray:
    """Correlation of cause[t] (T, A) with effect[t + lag] (T, S), rows of all episodes pooled -> (L, A, S)."""
    found = []
    for lag in lags:
        a = np.concatenate([c[max(0, -lag) : len(c) - max(0, lag)] for c in cause])
        b = np.concatenate([e[max(0, lag) : len(e) - max(0, -lag)] for e in effect])
        a, b = (_standard(v) for v in (a, b))
        found.append(a.T @ b / max(len(a), 1))
    return np.stack(found)


def relate(states: Column, actions: Column, *, fps: float, kind: ActionKind | None = None) -> Relation | None:
    """The relation that holds best over all episodes, or None where no action dimension follows any state dimension."""
    reach = max(4, round(fps))
    usable = [e for e in actions if e in states and len(actions[e]) >= 3]
    usable = usable[: max(1, _ROWS // max(1, int(np.mean([len(actions[e]) for e in usable] or [1]))))]
    # short episodes leave little overlap: the reach shrinks with the shortest of them
    reach = min([reach, *((len(actions[e]) - 1) // 2 for e in usable)], default=0)
    if reach < 1:
        return None
    lags = np.arange(-reach, reach + 1)
    moves = [smooth(motion(states[e])) for e in usable]
    best: Relation | None = None
    kinds: tuple[Literal["delta", "absolute"], ...] = ("delta", "absolute")
    for one in kinds:
        if kind is not None and one != ("delta" if kind == "delta" else "absolute"):
            continue
        causes = [smooth(_cause(actions[e], one)) for e in usable]
        table = correlations(causes, moves, list(lags))
        relation = _strongest(one, table * _lively(causes)[:, None] * _lively(moves), lags)
        if relation is not None and relation.peaked and (best is None or relation.weight > best.weight):
            best = relation
    return best


def _lively(signals: Sequence[np.ndarray]) -> np.ndarray:
    """(D,) bool: dimensions that move in enough rows for a correlation to mean something."""
    rows = np.concatenate(signals)
    return (np.abs(rows) > 1e-9).sum(axis=0) >= max(20, 0.05 * len(rows))


def _cause(action: np.ndarray, kind: str) -> np.ndarray:
    """(T - 1, A): the action at t, or its change from t - 1 to t, of which the first is unknown and taken as none."""
    action = np.asarray(action, np.float64)
    if kind == "delta":
        return action[:-1]
    return np.concatenate([np.zeros_like(action[:1]), motion(action)[:-1]])


def _strongest(kind: Literal["delta", "absolute"], table: np.ndarray, lags: np.ndarray) -> Relation | None:
    # one lag for all dimensions: a periodic one alone may fit best half a period away, with the wrong sign
    at = int(np.square(np.abs(table).max(axis=2)).sum(axis=1).argmax())
    pairs = []
    for a, row in enumerate(table[at]):
        s = int(np.abs(row).argmax())
        if abs(row[s]) >= MIN_CORRELATION:
            pairs.append((a, s, int(np.sign(row[s]))))
    if not pairs:
        return None
    curve = np.mean([table[:, a, s] * sign for a, s, sign in pairs], axis=0)
    return Relation(kind=kind, pairs=tuple(pairs), lags=lags, curve=curve)


def check_action_lag(relation: Relation, *, fps: float) -> list[Finding]:
    """Actions that come after their effect, or implausibly long (0.3 s and 3 frames) before it."""
    late = max(3, round(0.3 * fps))
    causal = relation.curve[relation.lags >= 0].max()
    if relation.lag < 0 and relation.correlation > causal + _MARGIN:
        sentence = (
            f"the state moves {-relation.lag} frames before the action that should move it (correlation "
            f"{relation.correlation:.2f} there, {causal:.2f} at best after the action); shift the actions "
            f"{-relation.lag} "
            "frames earlier"
        )
        return [finding("error", "action_lag", "action", sentence, evidence=relation.lag)]
    soon = relation.curve[(relation.lags >= 0) & (relation.lags <= late)].max()
    if relation.lag > late and relation.correlation > soon + _MARGIN:
        sentence = (
            f"the state follows the action {relation.lag} frames ({relation.lag / fps:.2f} s) late (correlation "
            f"{relation.correlation:.2f} there, {soon:.2f} within {late} frames); if the controller is not that "
            "slow, shift the actions later"
        )
        return [finding("warning", "action_lag", "action", sentence, evidence=relation.lag)]
    return []


def check_episode_lags(relation: Relation, states: Column, actions: Column) -> list[Finding]:
    """Episodes whose own best lag clearly differs from that of the whole dataset."""
    odd: dict[int, list[int]] = {}
    for e, action in actions.items():
        if e not in states or len(action) < 4 * len(relation.lags) // 2:
            continue
        table = correlations([smooth(_cause(action, relation.kind))], [smooth(motion(states[e]))], list(relation.lags))
        curve = np.mean([table[:, a, s] * sign for a, s, sign in relation.pairs], axis=0)
        own = int(relation.lags[curve.argmax()])
        usual = curve[np.abs(relation.lags - relation.lag) <= 1].max()
        if curve.max() > MIN_CORRELATION and curve.max() > usual + 0.15:
            odd.setdefault(own, []).append(e)
    found = []
    for lag, episodes in odd.items():
        sentence = (
            f"in {in_episodes(episodes)} actions and states fit best {lag} frames apart, in the dataset "
            f"{relation.lag}; "
            f"shift the actions of these episodes by {relation.lag - lag} frames or drop them"
        )
        found.append(finding("error", "action_lag", "action", sentence, evidence=lag - relation.lag, episodes=episodes))
    return found


def check_image_lag(camera: str, energies: Mapping[int, np.ndarray], states: Column, *, fps: float) -> list[Finding]:
    """energies {episode: (T - 1,)}: change between neighbouring frames. Its peaks belong where the state moves."""
    usable = [e for e, v in energies.items() if e in states and len(v) == len(states[e]) - 1 and len(v) >= 8]
    if not usable:
        return []
    speed = [smooth(_centred(np.abs(motion(states[e])))) for e in usable]
    change = [smooth(_centred(np.sqrt(np.asarray(energies[e], np.float64))[:, None])) for e in usable]
    reach = min(max(3, round(0.6 * fps)), min(map(len, speed)) // 2)
    lags = np.arange(-reach, reach + 1)
    table = correlations(speed, change, list(lags))[:, :, 0]
    seen = table.max(axis=0) >= 0.6 * table.max()  # the dimensions whose motion the camera sees
    scale = np.concatenate(speed).std(axis=0) + 1e-9
    merged = [(s / scale)[:, seen].sum(axis=1, keepdims=True) for s in speed]
    curve = correlations(merged, change, list(lags))[:, 0, 0]
    lag, allowed = int(lags[curve.argmax()]), 1
    near = curve[np.abs(lags) <= allowed].max()
    if abs(lag) <= allowed or curve.max() < MIN_CORRELATION or curve.max() < near + 0.1:
        return []
    when = "after" if lag > 0 else "before"
    sentence = (
        f"images of {camera} change {abs(lag)} frames {when} the state moves (correlation {curve.max():.2f} there, "
        f"{near:.2f} within one frame); shift the frames {abs(lag)} {'earlier' if lag > 0 else 'later'} against the "
        "rows"
    )
    return [finding("error", "image_lag", camera, sentence, evidence=lag)]


def _centred(value: np.ndarray) -> np.ndarray:
    return value - value.mean(axis=0)


def _standard(value: np.ndarray) -> np.ndarray:
    """(N, D) to zero mean and unit deviation, the outermost 1% clipped; a constant dimension becomes zero."""
    if not len(value):
        return value
    low, high = np.quantile(value, [0.005, 0.995], axis=0)
    value = np.clip(value, low, high)
    value = value - value.mean(axis=0)
    deviation = value.std(axis=0)
    return np.divide(value, deviation, out=np.zeros_like(value), where=deviation > 1e-9)
