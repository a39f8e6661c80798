"""Broken images: black or blank, frozen while the robot moves, repeated, or torn for a single frame.

All work on `thumbnails`, small grey copies of an episode's frames, so that each frame is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from wam.data.checks.columns import Column
from wam.data.checks.finding import Finding, Severity, finding, in_episodes, listed
from wam.data.checks.lag import motion

SIDE = 48  # the shorter side of a thumbnail has at least this many pixels, where the image has
_STILL = 0.15  # grey levels; re-encoding a repeated frame changes it by less


def thumbnails(frames: np.ndarray) -> np.ndarray:
    """frames (T, H, W, 3) uint8 -> (T, h, w) float32 grey levels 0 to 255, averaged over blocks of pixels."""
    block = max(1, min(frames.shape[1:3]) // SIDE)
    height, width = (side // block * block for side in frames.shape[1:3])
    grey = frames[:, :height, :width].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return grey.reshape(len(grey), height // block, block, width // block, block).mean(axis=(2, 4))


def read_thumbnails(read: Callable[[np.ndarray], np.ndarray], length: int, *, at_once: int = 32) -> np.ndarray:
    """Thumbnails of a whole episode; `read` gives the frames of some indices."""
    pieces = [thumbnails(read(np.arange(i, min(i + at_once, length)))) for i in range(0, length, at_once)]
    return np.concatenate(pieces)


def energy(thumbs: np.ndarray) -> np.ndarray:
    """(T, h, w) -> (T - 1,): mean squared change between neighbouring frames."""
    return np.square(np.diff(thumbs, axis=0)).mean(axis=(1, 2))


def check_blank(camera: str, views: Mapping[int, np.ndarray]) -> list[Finding]:
    """Frames of one colour: whole cameras, whole episodes, or single frames."""
    blank = {e: v.std(axis=(1, 2)) < 1.0 for e, v in views.items()}
    level = {e: float(v[blank[e]].mean()) for e, v in views.items() if blank[e].any()}
    whole = [e for e, b in blank.items() if b.all()]
    found = []
    if whole:
        kind = "black" if np.mean([level[e] for e in whole]) < 8 else "blank"
        every = len(whole) == len(blank)
        where = f"all {len(whole)} episodes looked at" if every else in_episodes(whole)
        sentence = (
            f"{camera} is {kind} throughout in {where} (mean grey level {np.mean([level[e] for e in whole]):.1f}); "
            f"{'drop this camera' if every else 'drop it there, or mask the view'}"
        )
        severity: Severity = "warning" if every else "error"
        found.append(finding(severity, "blank", camera, sentence, evidence=level[whole[0]], episodes=whole))
    some = {e: int(b.sum()) for e, b in blank.items() if b.any() and not b.all()}
    if some:
        first = next(iter(some))
        kind = "black" if np.mean([level[e] for e in some]) < 8 else "blank"
        sentence = (
            f"{camera} has {sum(some.values())} {kind} frames in {in_episodes(list(some))} (first: frame "
            f"{int(blank[first].argmax())} of episode {first}); drop these frames or episodes"
        )
        found.append(finding("error", "blank", camera, sentence, evidence=sum(some.values()), episodes=some))
    return found


def check_frozen(camera: str, views: Mapping[int, np.ndarray], states: Column | None, *, fps: float) -> list[Finding]:
    """Images that stand still while the state moves: in one long run, or again and again (a slower camera).

    Without states a run counts where the images around it change clearly all the time.
    """
    least = max(4, round(0.4 * fps))
    runs: dict[int, tuple[int, int]] = {}
    repeated: dict[int, float] = {}
    for episode, thumbs in views.items():
        change = np.sqrt(energy(thumbs))
        if len(change) < least or thumbs.std(axis=(1, 2)).max() < 1:
            continue
        moving = _moving(states, episode, len(change))
        if moving is None:
            if np.quantile(change, 0.2) < 3 * _STILL and np.median(change) < 10 * _STILL:
                continue
            moving = np.ones(len(change), bool)
        still = (
            (change < _STILL) & (change < 0.1 * np.quantile(change[moving], 0.8))
            if moving.any()
            else np.zeros(len(change), bool)
        )
        if moving.any() and np.median(change[moving]) < _STILL:
            still = moving & (change < _STILL)
        start, size = _longest(still)
        if size >= least and moving[start : start + size].mean() > 0.7:
            runs[episode] = (start, size)
        elif moving.sum() >= 20 and still[moving].mean() > 0.3 and np.median(change[moving & ~still]) > 5 * _STILL:
            repeated[episode] = float(still[moving].mean())
    found = []
    if runs:
        first = next(iter(runs))
        start, size = runs[first]
        sentence = (
            f"{camera} is frozen for {size} frames from frame {start} of episode {first} while the robot moves"
            f"{f' (and in {in_episodes(list(runs)[1:])})' if len(runs) > 1 else ''}; cut or drop these episodes"
        )
        if states is None:
            sentence = sentence.replace(" while the robot moves", ", though it changes all the time elsewhere")
        found.append(finding("error", "frozen", camera, sentence, evidence=size, episodes=runs))
    if repeated:
        share = float(np.mean(list(repeated.values())))
        sentence = (
            f"{100 * share:.0f}% of the frames of {camera} repeat the one before while the robot moves in "
            f"{in_episodes(list(repeated))}: the camera ran at about {fps * (1 - share):.3g} frames a second, not "
            f"{fps:g}; resample"
        )
        found.append(finding("warning", "frozen", camera, sentence, evidence=share, episodes=repeated))
    return found


def _moving(states: Column | None, episode: int, length: int) -> np.ndarray | None:
    """(T - 1,) bool: rows where the state moves at a good part of its usual speed."""
    if states is None or episode not in states or len(states[episode]) != length + 1:
        return None
    step = motion(states[episode])
    scale = np.abs(step).max(axis=0)
    speed = np.linalg.norm(np.divide(step, scale, out=np.zeros_like(step), where=scale > 1e-9), axis=1)
    return speed > 0.25 * np.quantile(speed, 0.9) if speed.max() > 0 else None


def _longest(flags: np.ndarray) -> tuple[int, int]:
    """(start, length) of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    if not len(edges):
        return 0, 0
    starts, sizes = edges[::2], edges[1::2] - edges[::2]
    return int(starts[sizes.argmax()]), int(sizes.max())


def check_torn(camera: str, views: Mapping[int, np.ndarray]) -> list[Finding]:
    """Single frames unlike both neighbours, which are alike: damage in recording or decoding."""
    guilty: dict[int, Sequence[int]] = {}
    worst = 0.0
    for episode, thumbs in views.items():
        if len(thumbs) < 5:
            continue
        change = np.sqrt(energy(thumbs))
        across = np.sqrt(np.square(thumbs[2:] - thumbs[:-2]).mean(axis=(1, 2)))
        least = np.minimum(change[:-1], change[1:])
        torn = (least > 12) & (across < 0.4 * least) & (least > 3 * np.median(change))
        blank = thumbs[1:-1].std(axis=(1, 2)) < 1.0  # has its own finding
        if (torn & ~blank).any():
            guilty[episode] = (np.flatnonzero(torn & ~blank) + 1).tolist()
            worst = max(worst, float(least[torn & ~blank].max()))
    if not guilty:
        return []
    first = next(iter(guilty))
    sentence = (
        f"{camera} has {sum(map(len, guilty.values()))} torn frames in {in_episodes(list(guilty))} (frame "
        f"{listed(guilty[first])} of "
        f"episode {first} differs by {worst:.0f} grey levels from both its neighbours, which are alike); drop these "
        "frames or episodes"
    )
    return [finding("error", "torn", camera, sentence, evidence=worst, episodes=guilty)]
