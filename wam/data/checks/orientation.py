"""Images that are upside down or mirrored.

Three kinds of evidence: an episode's background against that of the others, the motion in the image against the hand's
path projected through known cameras, and, where no camera is known, an affine camera fitted to motion and path. Of that
camera only this is taken for granted: z points up, it stands upright and it looks down on the scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wam.data.checks.columns import Column
from wam.data.checks.finding import Finding, finding, in_episodes
from wam.data.poses import CameraPose

FLIPS = {"upside down": (slice(None, None, -1), slice(None)), "mirrored": (slice(None), slice(None, None, -1)),
         "turned by 180 degrees": (slice(None, None, -1), slice(None, None, -1))}  # fmt: skip
CURES = {"upside down": "vertical", "mirrored": "horizontal", "turned by 180 degrees": "rotate"}

_CLEAR = 0.2  # sine of the angle by which a camera must look down, or stand upright, to be judged


@dataclass(frozen=True, kw_only=True)
class Track:
    """Where the image changed and where the hand was meanwhile.

    place (N, 2): centre of the change, as fractions of width and height, minus its episode's mean. hand (N, 3): metres,
    minus its episode's mean. raw (N, 3): the hand itself. episode (N,).
    """

    place: np.ndarray
    hand: np.ndarray
    raw: np.ndarray
    episode: np.ndarray


def track_motion(views: Mapping[int, np.ndarray], hands: Column) -> Track:
    """views {episode: (T, h, w)}, hands {episode: (T, 3)}. Steps where little or most of the image changes are left out."""
    places, paths, raws, owners = [], [], [], []
    for episode, thumbs in views.items():
        if episode not in hands or len(hands[episode]) != len(thumbs) or len(thumbs) < 4:
            continue
        change = np.abs(np.diff(thumbs, axis=0))
        noise = max(6.0, 3 * float(np.median(change)))
        weight = np.where(change > noise, change, 0)
        share = (weight > 0).mean(axis=(1, 2))
        middle = (hands[episode][1:] + hands[episode][:-1]) / 2
        moved = np.linalg.norm(np.diff(hands[episode], axis=0), axis=1)
        good = (
            (share > 0.002) & (share < 0.4) & (moved > 0.1 * np.quantile(moved, 0.9)) & np.isfinite(middle).all(axis=1)
        )
        if good.sum() < 4:
            continue
        weight, middle = weight[good], middle[good]
        total = weight.sum(axis=(1, 2))
        height, width = weight.shape[1:]
        u = weight.sum(axis=1) @ ((np.arange(width) + 0.5) / width) / total
        v = weight.sum(axis=2) @ ((np.arange(height) + 0.5) / height) / total
        place = np.stack([u, v], axis=1)
        places.append(place - place.mean(axis=0))
        paths.append(middle - middle.mean(axis=0))
        raws.append(middle)
        owners.append(np.full(len(middle), episode))
    if not places:
        empty = np.zeros((0, 3))
        return Track(place=empty[:, :2], hand=empty, raw=empty, episode=empty[:, 0])
    return Track(
        place=np.concatenate(places),
        hand=np.concatenate(paths),
        raw=np.concatenate(raws),
        episode=np.concatenate(owners),
    )


def check_against_others(camera: str, views: Mapping[int, np.ndarray]) -> list[Finding]:
    """Episodes whose background fits that of the others only when turned. Different scenes fit in no way, and are left."""
    size = 32
    flat = {}
    for episode, thumbs in views.items():
        picture = _resized(np.median(thumbs[:: max(1, len(thumbs) // 16)], axis=0), size)
        if picture.std() > 2:
            flat[episode] = (picture - picture.mean()) / picture.std()
    if len(flat) < 3:
        return []
    episodes = list(flat)
    pictures = np.stack([flat[e] for e in episodes])
    plain = pictures.reshape(len(episodes), -1)
    fits = {"": plain @ plain.T / size**2}
    fits |= {name: plain @ pictures[:, v, h].reshape(len(episodes), -1).T / size**2 for name, (v, h) in FLIPS.items()}
    names, table = list(fits), np.stack(list(fits.values()))  # (4, E, E)
    order = np.sort(table, axis=0)
    near = (order[-1] - order[-2] > 0.15) | (1 - order[-1] < 0.25 * (1 - order[-2]))
    sure, best = (order[-1] > 0.6) & near, table.argmax(axis=0)
    found = []
    for group in _scenes(sure, best, names):
        sizes = {name: sum(n == name for n in group.values()) for name in names}
        many = max(sizes, key=lambda name: sizes[name])
        usual = [i for i, name in group.items() if name == many]
        for name in set(group.values()) - {many}:
            places = [i for i, own in group.items() if own == name]
            relative = _combined(name, many)
            fit, plain_fit = (float(table[names.index(n)][np.ix_(places, usual)].mean()) for n in (relative, ""))
            guilty = [episodes[i] for i in places]
            sentence = (
                f"{camera} is {relative} in {in_episodes(guilty)} against {len(usual)} others with the same background "
                f"(correlation {fit:.2f} when turned, {plain_fit:.2f} as it is); turn these images "
                f"(flip={CURES[relative]}) or drop the episodes"
            )
            found.append(finding("error", "orientation", camera, sentence, evidence=fit, episodes=guilty))
    return found


def _scenes(sure: np.ndarray, best: np.ndarray, names: Sequence[str]) -> list[dict[int, str]]:
    """Episodes joined by sure relations, at least three each: {place: its turn against the group's first}."""
    left, groups = set(range(len(sure))), []
    while left:
        first = min(left)
        group, queue = {first: ""}, [first]
        while queue:
            i = queue.pop()
            for j in sorted(left - set(group)):
                if sure[i, j]:
                    group[j] = _combined(group[i], names[best[i, j]])
                    queue.append(j)
        left -= set(group)
        if len(group) >= 3:
            groups.append(group)
    return groups


def _combined(first: str, second: str) -> str:
    """The flip that leads from one flip to another: vertical and horizontal parts cancel or remain."""
    parts = {"": (0, 0), "upside down": (1, 0), "mirrored": (0, 1), "turned by 180 degrees": (1, 1)}
    wanted = tuple(a ^ b for a, b in zip(parts[first], parts[second], strict=True))
    return next(name for name, part in parts.items() if part == wanted)


def check_projected(camera: str, track: Track, pose: CameraPose) -> list[Finding]:
    """The image's changes must follow the hand's path as the known camera sees it."""
    if len(track.place) < 20:
        return []
    seen = pose.project(track.raw)
    for episode in np.unique(track.episode):
        seen[track.episode == episode] -= seen[track.episode == episode].mean(axis=0)
    fit = [_correlation(track.place[:, i], seen[:, i]) for i in (0, 1)]
    across, down = (f < -0.5 for f in fit)
    if not (across or down):
        return []
    name = "turned by 180 degrees" if across and down else ("mirrored" if across else "upside down")
    sentence = (
        f"{camera} is {name}: its motion runs against the hand's path seen through the camera's extrinsics "
        "(correlation "
        f"{fit[0]:.2f} across, {fit[1]:.2f} down); turn the images (flip={CURES[name]}) or correct the extrinsics"
    )
    return [finding("error", "orientation", camera, sentence, evidence=min(fit))]


def check_upright(camera: str, track: Track) -> list[Finding]:
    """The affine camera of the first paragraph, fitted to at least five episodes of one fixed camera.

    One episode is not enough: the hand moves nearly in a plane, and what it pushes or the arm behind it tilts the fit.
    """
    fitted = fit_camera(track)
    if fitted is None:
        return []
    up, down, fit = fitted
    name = _verdict(up, down)
    if name == "":
        return []
    turned = name if name in CURES else "turned about one axis"
    cure = f"flip={CURES[name]}" if name in CURES else "flip=vertical or flip=horizontal"
    why = []
    if up < -_CLEAR:
        why.append("the image moves down when the hand goes up")
    if down < -_CLEAR:
        why.append("the hand's path fits only a camera that looks up from below the table")
    sentence = (
        f"{camera} seems to be {turned}: {' and '.join(why)} (explained variance {fit:.2f}); look at a frame, and "
        "turn the images "
        f"({cure}) unless the camera really stands so or z does not point up"
    )
    return [finding("warning", "orientation", camera, sentence, evidence=min(up, down))]


def fit_camera(track: Track) -> tuple[float, float, float] | None:
    """(upright, looking down, explained variance) of the affine camera, each score in [-1, 1] and 0 if uncertain.

    upright: minus the z part of the image's downward axis. looking down: minus the z part of the viewing direction.
    None where motion and path do not go together, or the hand's paths do not fill space.
    """
    episodes = np.unique(track.episode)
    if len(episodes) < 5 or len(track.place) < 60:
        return None
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(track.hand.T)).clip(0))
    matrix, explained = _solve(track.place, track.hand)
    if spread[0] < 0.15 * spread[-1] or explained < 0.4:
        return None
    random = np.random.default_rng(0)
    rows_of = [np.flatnonzero(track.episode == e) for e in episodes]
    samples = []
    for _ in range(100):
        rows = np.concatenate([rows_of[i] for i in random.integers(len(rows_of), size=len(rows_of))])
        samples.append(_scores(_solve(track.place[rows], track.hand[rows])[0]))
    scores = np.array(_scores(matrix))
    sure = (np.sign(samples) == np.sign(scores)).mean(axis=0) > 0.97
    up, down = np.where(sure, scores, 0.0)
    return float(up), float(down), explained


def _solve(place: np.ndarray, hand: np.ndarray) -> tuple[np.ndarray, float]:
    """Robust least squares place ~ hand @ M.T -> M (2, 3), and the explained share of the variance."""
    weight = np.ones(len(place))
    for _ in range(3):
        scaled = weight[:, None]
        ridge = 1e-3 * np.diag((hand**2 * scaled).sum(axis=0) + 1e-12)
        matrix = np.linalg.solve((hand * scaled).T @ hand + ridge, (hand * scaled).T @ place).T
        error = np.linalg.norm(place - hand @ matrix.T, axis=1)
        weight = 1 / np.maximum(error, 1.5 * np.median(error) + 1e-9)
        weight /= weight.max()
    left, whole = (weight * error**2).sum(), (weight[:, None] * place**2).sum()
    return matrix, float(1 - left / max(whole, 1e-12))


def _scores(matrix: np.ndarray) -> tuple[float, float]:
    right, down = (row / (np.linalg.norm(row) + 1e-12) for row in matrix)
    return float(-down[2]), float(-np.cross(right, down)[2])


def _verdict(up: float, down: float) -> str:
    if down < -_CLEAR:
        return "mirrored" if up > _CLEAR else "upside down" if up < -_CLEAR else "one axis"
    return "turned by 180 degrees" if up < -_CLEAR and down > _CLEAR else ""


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 1e-3 else 0.0


def _resized(picture: np.ndarray, size: int) -> np.ndarray:
    """(h, w) -> (size, size) by averaging the nearest rows and columns."""
    rows, columns = ((np.arange(n) * size // n) for n in picture.shape)
    if min(picture.shape) < size:
        grid = [np.arange(size) * n // size for n in picture.shape]
        return picture[np.ix_(*grid)]
    summed = np.zeros((size, size))
    counts = np.zeros((size, size))
    np.add.at(summed, np.ix_(rows, columns), picture)
    np.add.at(counts, np.ix_(rows, columns), 1)
    return summed / counts


def find_position(names: Sequence[str]) -> tuple[int, int, int] | None:
    """The hand's x, y, z among a state's names: a triple x, y, z with one prefix and ending, the first such."""
    lower = [n.lower() for n in names]
    for i, name in enumerate(lower):
        if "x" not in name or any(word in name for word in ("quat", "axis", "rot", "goal", "vel")):
            continue
        for j, letter in enumerate(name):
            if letter == "x":
                others = [name[:j] + axis + name[j + 1 :] for axis in "yz"]
                if all(o in lower for o in others):
                    return i, lower.index(others[0]), lower.index(others[1])
    return None
