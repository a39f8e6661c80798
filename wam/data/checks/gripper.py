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
        for e, action in actions.items():
            if e in states:
                sign = response(action[:, action_dim], states[e][:, state_dim], reach=max(2, round(fps)))
                if abs(sign) > 0.5:
                    signs[e] = sign
    if signs:
        positive, negative = [e for e, s in signs.items() if s > 0], [e for e, s in signs.items() if s < 0]
        few, many = sorted((positive, negative), key=len)
        if few:
            sentence = (
                f"the gripper's action moves its state in {in_episodes(few)} the other way (correlation "
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


def response(action: np.ndarray, state: np.ndarray, *, reach: int) -> float:
    """Correlation in [-1, 1] of a gripper's action with its state (or the state's motion) within `reach` rows.

    The stronger of the two; 0 where action or state does not move.
    """
    if len(action) < 8 or np.ptp(action) < 1e-3 or np.ptp(state) < 1e-3 * max(1e-6, np.abs(state).max()):
        return 0.0
    best = 0.0
    speed = smooth(np.diff(state)[:, None])[:, 0]
    for effect in (state, speed):
        for lag in range(0, min(reach, len(action) // 3) + 1):
            a, b = action[: len(effect) - lag], effect[lag:]
            a = a[: len(b)]
            if a.std() > 1e-9 and b.std() > 1e-12:
                value = float(np.corrcoef(a, b)[0, 1])
                best = value if abs(value) > abs(best) else best
    return best


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
