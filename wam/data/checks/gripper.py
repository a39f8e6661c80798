"""The gripper's sign: one convention in all episodes, and the one that the action space declares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam.contracts import ActionSpace
from wam.data.checks.columns import Column
from wam.data.checks.finding import Finding, finding, in_episodes
from wam.data.checks.lag import smooth

_OPEN_WORDS, _CLOSED_WORDS = ("open", "width", "aperture"), ("clos",)


def gripper_dimension(names: Sequence[str], space: ActionSpace | None = None) -> int | None:
    """The gripper's dimension: as the action space says, else the one name that speaks of a gripper."""
    if space is not None and space.gripper is not None and len(names) == space.dim:
        return space.names.index(space.gripper)
    named = [i for i, name in enumerate(names) if "grip" in name.lower()]
    return named[0] if len(named) == 1 else None


def check_gripper(
    states: Column, actions: Column, *, action_dim: int, state_dim: int | None, state_name: str = "",
    space: ActionSpace | None = None, fps: float,
) -> list[Finding]:  # fmt: skip
    """Episodes against each other, the state's name against the action space, and how episodes start."""
    found = []
    signs: dict[int, float] = {}
    if state_dim is not None:
        reach = max(2, round(0.25 * fps))
        each = responses(states, actions, action_dim=action_dim, state_dim=state_dim, reach=reach)
        signs = {e: agreement for e, agreement in each.items() if abs(agreement) > 0.6}
    if signs:
        positive, negative = [e for e, s in signs.items() if s > 0], [e for e, s in signs.items() if s < 0]
        few, many = sorted((positive, negative), key=len)
        if few:
            sentence = (
                f"the gripper's action moves its state in {in_episodes(few)} the other way (agreement "
                f"{np.mean([signs[e] for e in few]):.2f}) than in {len(many)} other episodes "
                f"({np.mean([signs[e] for e in many]):.2f}); flip the gripper's sign in them"
            )
            found.append(finding("error", "gripper", "action", sentence, evidence=signs[few[0]], episodes=few))
        closed_high = _state_closes_high(state_name)
        if space is not None and closed_high is not None and not (few and len(few) * 2 > len(many)):
            says = (len(positive) > len(negative)) == closed_high  # the action closes upwards
            if says != space.gripper_closed_high:
                sentence = (
                    f"the action space says that a larger {space.gripper} is more "
                    f"{'closed' if space.gripper_closed_high else 'open'}, "
                    f"but it goes with a {'larger' if len(positive) > len(negative) else 'smaller'} {state_name!r} in "
                    f"{len(many)} of {len(signs)} episodes; flip the sign or correct gripper_closed_high"
                )
                found.append(
                    finding("error", "gripper", "action", sentence, evidence=float(np.mean(list(signs.values()))))
                )
    if not found and space is not None and space.gripper is not None:
        found += _check_start(actions, action_dim, space)
    return found


def responses(states: Column, actions: Column, *, action_dim: int, state_dim: int, reach: int) -> dict[int, float]:
    """{episode: agreement in [-1, 1]} of the gripper's command with its state, in episodes where the state moves.

    A command is a place (its level goes with the state's) or an effort (its side of mid-range goes with the state's
    motion). Which of the two, and the delay within `reach` rows, is settled once for all episodes.
    """
    commands = {e: a[:, action_dim] for e, a in actions.items() if e in states and len(a) > max(8, 2 * reach)}
    if not commands:
        return {}
    places = {e: states[e][:, state_dim] for e in commands}
    low, high = np.quantile(np.concatenate(list(commands.values())), [0.02, 0.98])
    span = float(np.ptp(np.concatenate(list(places.values()))))
    if high - low < 1e-6 or span < 1e-6:
        return {}
    efforts = {e: (c - (low + high) / 2) / (high - low) for e, c in commands.items()}
    speeds = {e: smooth(np.diff(p)[:, None])[:, 0] for e, p in places.items()}
    usual = float(np.quantile(np.abs(np.concatenate(list(speeds.values()))), 0.98))
    speeds = {e: np.where(np.abs(s) > 0.25 * usual, s, 0) for e, s in speeds.items()}
    judged = [e for e in speeds if np.ptp(places[e]) > 0.3 * span and (speeds[e] != 0).sum() >= 4]
    if len(judged) < 3:
        return {}
    trials = []
    for lag in range(reach + 1):
        early = {e: efforts[e][: len(speeds[e]) - lag] for e in judged}
        trials.append({e: _cosine(early[e] - early[e].mean(), _centred(places[e][lag:-1])) for e in judged})
        trials.append({e: _cosine(early[e], speeds[e][lag:]) for e in judged})
    best = max(trials, key=lambda found: np.abs(list(found.values())).mean())
    return best if np.median(np.abs(list(best.values()))) > 0.8 else {}


def _centred(value: np.ndarray) -> np.ndarray:
    return value - value.mean()


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Only rows in which b is not 0 count."""
    a, b = a[b != 0], b[b != 0]
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 1e-9 else 0.0


def _state_closes_high(name: str) -> bool | None:
    name = name.lower()
    if any(word in name for word in _CLOSED_WORDS):
        return True
    return False if any(word in name for word in _OPEN_WORDS) else None


def _check_start(actions: Column, dim: int, space: ActionSpace) -> list[Finding]:
    """Where the gripper is used, nearly every demonstration begins with it open."""
    starts: dict[int, bool] = {}
    for episode, action in actions.items():
        gripper = action[:, dim]
        low, high = np.quantile(gripper, [0.02, 0.98])
        if high - low > 0.3 * (space.high[dim] - space.low[dim]):
            closed = gripper[: max(1, len(gripper) // 20)].mean() > (low + high) / 2
            starts[episode] = bool(closed == space.gripper_closed_high)
    guilty = [e for e, closed in starts.items() if closed]
    if len(starts) < 5 or len(guilty) < 0.8 * len(starts):
        return []
    sentence = (
        f"{len(guilty)} of {len(starts)} episodes in which the gripper moves begin with it closed, if a "
        f"{'larger' if space.gripper_closed_high else 'smaller'} {space.gripper} is more closed as the action space "
        "says; check the sign"
    )
    return [finding("warning", "gripper", "action", sentence, evidence=len(guilty) / len(starts), episodes=guilty)]
