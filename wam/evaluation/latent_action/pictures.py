"""Arrays for a person to look at: what was foreseen, what other codes would have done, and whose motion was borrowed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam.evaluation.gates import derangement
from wam.evaluation.latent_action.driving import foreseen
from wam.evaluation.latent_action.readings import Readings
from wam.evaluation.latent_action.transfer import AlignedPairs, Transfer
from wam.tokenizers.latent_action import LatentActionTokenizer


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A table of pictures: frames (rows, columns, H, W, 3) uint8, a word for each row, and a title in a sentence."""

    name: str
    title: str
    rows: tuple[str, ...]
    frames: np.ndarray


def foresight_strip(
    tokenizer: LatentActionTokenizer, windows: Readings, name: str, *, columns: int, seed: int
) -> Strip:
    """Windows spread over the clips, of those that move more than most; the first view that is there."""
    chosen = windows[_spread(windows, columns)]
    order = derangement(len(chosen), seed=seed)
    present, later = chosen.frames[:, :, 0], chosen.frames[:, :, 1]
    view = int(np.flatnonzero(chosen.there)[0])
    told = [
        _bytes(foreseen(tokenizer, present, z, chosen.there, camera=chosen.camera))
        for z in (chosen.latents, chosen.latents[order])
    ]
    return Strip(
        name=name,
        title="The next frame from the present and a latent action: its own, and another window's",
        rows=("present", "real next", "own code", "other code"),
        frames=np.stack([frames[:, view] for frames in (present, later, *told)]),
    )


def latent_walk(tokenizer: LatentActionTokenizer, windows: Readings, name: str, *, columns: int = 5) -> Strip:
    """One present under latents along the directions in which latents vary most, two standard deviations either way."""
    chosen = windows[_spread(windows, 1)]
    view = int(np.flatnonzero(chosen.there)[0])
    middle = windows.latents.mean(axis=0)
    _, spread, directions = np.linalg.svd(windows.latents - middle, full_matrices=False)
    present = np.repeat(chosen.frames[:, :, 0], columns, axis=0)
    rows = []
    for direction, size in zip(directions[:4], spread[:4] / np.sqrt(len(windows)), strict=True):
        latents = middle + np.linspace(-2, 2, columns)[:, None] * size * direction
        rows.append(_bytes(foreseen(tokenizer, present, latents.astype(np.float32), chosen.there))[:, view])
    return Strip(
        name=name,
        title="One present under latents that differ along one direction at a time",
        rows=tuple(f"direction {number + 1}" for number in range(len(rows))),
        frames=np.stack(rows),
    )


def swap_strip(windows: Readings, driven: np.ndarray, frames: np.ndarray, *, columns: int) -> Strip:
    """A's present and next frame, B's present, and B under A's latents."""
    rows = _spread(windows, columns)
    view = int(np.flatnonzero(windows.there)[0])
    parts = (windows.frames[rows, view, 0], windows.frames[rows, view, 1], windows.frames[driven[rows], view, 0])
    return Strip(
        name="swap",
        title="What happens in A, as its latents say it, made to happen in B of another scene",
        rows=("A present", "A next", "B present", "B under A's"),
        frames=np.stack([*parts, frames[rows, view]]),
    )


def transfer_strip(pairs: AlignedPairs, moved: Transfer, *, columns: int) -> Strip:
    """Human and robot, present and next, and the robot under the human's latents; where the robot moves most in each clip."""
    change = np.abs(pairs.robot[:, 1].astype(np.int16) - pairs.robot[:, 0]).mean(axis=(1, 2, 3))
    clips = np.unique(pairs.clip)
    each = max(1, -(-columns // len(clips)))
    rows: list[int] = []
    for clip in clips:
        own = np.flatnonzero(pairs.clip == clip)
        for part in np.array_split(own, each):
            rows.append(int(part[np.argmax(change[part])]))
    chosen = np.array(rows[:columns])
    frames = (pairs.human[:, 0], pairs.human[:, 1], pairs.robot[:, 0], pairs.robot[:, 1], moved.predicted)
    return Strip(
        name="transfer",
        title="Latents of a human clip drive the robot clip that is aligned with it",
        rows=("human present", "human next", "robot present", "robot next", "driven"),
        frames=np.stack([part[chosen] for part in frames]),
    )


def _spread(windows: Readings, count: int) -> np.ndarray:
    """Windows of different episodes, those that change most in each; from as many episodes as there are."""
    change = np.abs(windows.frames[:, :, 1].astype(np.int16) - windows.frames[:, :, 0]).mean(axis=(1, 2, 3, 4))
    best: dict[int, int] = {}
    for episode in np.unique(windows.episode):
        own = np.flatnonzero(windows.episode == episode)
        best[int(episode)] = int(own[np.argmax(change[own])])
    order = [best[e] for e in sorted(best, key=lambda e: -change[best[e]])]
    picked = [order[i] for i in np.unique(np.linspace(0, max(0, len(order) * 3 // 4 - 1), count).astype(int))]
    rest = [row for row in np.argsort(-change) if row not in picked]
    return np.array((picked + rest)[: max(1, min(count, len(windows)))])


def _bytes(frames: np.ndarray) -> np.ndarray:
    return np.round(frames * 255).astype(np.uint8)
