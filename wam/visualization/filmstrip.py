"""Film strips: what happened above, what the model imagined below, and where the two differ.

And the what-if picture: one start under different actions, where only the action may make a difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam.visualization.images import arrow, check_frames, difference, enlarge, heat, png, table


def film_strip(real: np.ndarray, imagined: np.ndarray, present: np.ndarray, *, scale: int = 3) -> bytes:
    """PNG with three rows: real, imagined, difference; for each view the present frame, then the future.

    real, imagined (V, T, H, W, C); present (V, H, W, C); uint8. The present stands in both rows, its difference empty.
    """
    check_frames(real, "V T H W C")
    check_frames(imagined, "V T H W C")
    check_frames(present, "V H W C")
    rows: list[list[np.ndarray | None]] = [[], [], []]
    for v in range(len(real)):
        rows[0] += [present[v], *real[v]]
        rows[1] += [present[v], *imagined[v]]
        rows[2] += [None, *heat(difference(real[v], imagined[v]))]
    cells = [[None if cell is None else enlarge(cell, scale) for cell in row] for row in rows]
    return png(table(cells, gap=2 * scale, groups=range(1 + real.shape[1], len(rows[0]), 1 + real.shape[1])))


def what_if_picture(
    present: np.ndarray,
    imagined: np.ndarray,
    motion: np.ndarray,
    *,
    truth: np.ndarray | None = None,
    extrinsics: np.ndarray | None = None,
    scale: int = 3,
) -> bytes:
    """`what_if_cells` as a PNG."""
    cells = what_if_cells(present, imagined, motion, truth=truth, extrinsics=extrinsics, scale=scale)
    return png(table(cells, gap=2 * scale, groups=(1,)))


def what_if_cells(
    present: np.ndarray,
    imagined: np.ndarray,
    motion: np.ndarray,
    *,
    truth: np.ndarray | None = None,
    extrinsics: np.ndarray | None = None,
    scale: int = 3,
) -> list[list[np.ndarray | None]]:
    """Rows of pictures, a column for the present and for each of M actions; per view a row of imagined last frames, one of the
    truth if it is known, and one of how the imagined frame differs from that of the first action (standing still).

    present (V, H, W, C); imagined and truth (M, V, T, H, W, C) uint8; motion (M, 3); extrinsics (V, 4, 4) camera-to-world
    turn the action's direction into the picture's; without them x points right, y up, and z is not drawn.
    """
    check_frames(present, "V H W C")
    check_frames(imagined, "M V T H W C")
    longest = max(float(np.abs(motion).max()), 1e-9)
    rows: list[list[np.ndarray | None]] = []
    for v in range(len(present)):
        last = imagined[:, v, -1]
        camera = None if extrinsics is None else extrinsics[v]
        arrows = [arrow(enlarge(f, scale), project(m / longest, camera)) for f, m in zip(last, motion, strict=True)]
        rows.append([enlarge(present[v], scale), *arrows])
        if truth is not None:
            rows.append([None, *(enlarge(frame, scale) for frame in truth[:, v, -1])])
        changed = heat(difference(last, last[:1]))
        rows.append([None, *(enlarge(frame, scale) for frame in changed)])
    return rows


def what_if_rows(views: int, *, truth: bool, reference: str = "the first") -> list[str]:
    """What each row of `what_if_cells` shows; reference: the name of the first action."""
    rows = []
    for v in range(views):
        view = f"view {v + 1}: " if views > 1 else ""
        rows += [f"{view}imagined", *([f"{view}simulated"] if truth else []), f"{view}moved, against {reference}"]
    return rows


def project(direction: Sequence[float] | np.ndarray, extrinsics: np.ndarray | None) -> tuple[float, float]:
    """A direction in the world (x, y, z) as right and down in a picture, without perspective."""
    if extrinsics is None:
        return float(direction[0]), -float(direction[1])
    seen = np.asarray(extrinsics)[:3, :3].T @ np.asarray(direction, float)
    return float(seen[0]), float(seen[1])
