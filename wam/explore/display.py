"""How futures look: a film strip with what came beside them, a table of actions, cells of a grid, an animation, files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wam.data.video import encode_video
from wam.evaluation.gates import mean_motion
from wam.explore.asking import motion_of
from wam.explore.futures import Futures, thinned
from wam.files import write_bytes
from wam.visualization.animation import animate
from wam.visualization.filmstrip import project, what_if_cells, what_if_rows
from wam.visualization.images import arrow, data_uri, difference, enlarge, heat, png
from wam.visualization.labelled import captioned, labelled
from wam.visualization.markup import escape
from wam.visualization.recording import Lane, write_recording
from wam.visualization.voxels import draw_voxels

SIDE = 96
"""Pixels that a frame of a film strip is brought to, at least."""
WIDEST = 9
LONGEST_S = 3.0
Cells = list[list[np.ndarray | None]]


def strip_png(futures: Futures) -> bytes:
    """PNG of everything at once: frames, what came, where it differs, and the voxels if there are any."""
    parts = [by_action(futures) if _only_actions_differ(futures) else by_time(futures)]
    if futures.filled is not None:
        parts.append(grids(futures))
    width = max(part.shape[1] for part in parts)
    return png(np.concatenate([_padded(part, width, part.shape[0] + 14) for part in parts]))


def by_time(futures: Futures) -> np.ndarray:
    """A row for what came, for each future, and for where they differ; a column for each moment of each camera."""
    start, shown = futures.start, thinned(len(futures.offsets), 6)
    scale = _scale(futures)
    times = ["now", *(f"+{futures.seconds[t]:.2f} s" for t in shown)]
    views = len(start.cameras)
    blocks = [[v] for v in range(views)] if views * len(times) > WIDEST else [list(range(views))]
    cells: Cells = []
    names: list[str] = []
    heads = [
        f"{start.cameras[v]} {time}" if len(blocks) == 1 and views > 1 else time for v in blocks[0] for time in times
    ]
    motion = _motion(futures)
    for block in blocks:
        for line in _lines(futures):
            names.append(line.name + (f" · {start.cameras[block[0]]}" if len(blocks) > 1 else ""))
            row: list[np.ndarray | None] = []
            for v in block:
                first = enlarge(start.present[v], scale) if line.begins else None
                if first is not None and line.told is not None and motion is not None:
                    first = arrow(first, project(motion[line.told], _camera(futures, v)))
                row += [first, *(enlarge(line.frames[v, t], scale) for t in shown)]
            cells.append(row)
    groups = range(len(times), len(cells[0]), len(times))
    return labelled(cells, rows=names, heads=heads, groups=groups)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A row of the strip: frames (V, T, H, W, 3). begins: with the present; told: the future whose push is drawn on it."""

    name: str
    frames: np.ndarray
    begins: bool = True
    told: int | None = None


def _lines(futures: Futures) -> list[_Line]:
    """The rows of the strip, from the top."""
    truth, pictures, alone = futures.truth, futures.pictures, len(futures) == 1
    lines: list[_Line] = []
    if truth is not None and not truth.each:
        lines.append(_Line(name="what came", frames=truth.frames[0]))
    for r, name in enumerate(futures.names):
        lines.append(_Line(name="imagined" if alone else name, frames=pictures[r], told=r))
        if truth is not None and truth.each:
            lines.append(_Line(name=truth.source if alone else f"{truth.source}, {name}", frames=truth.frames[r]))
        if truth is not None and len(futures) <= 2:
            wrong = heat(difference(truth.frames[r], pictures[r]))
            lines.append(_Line(name="difference", frames=wrong, begins=False))
    if not alone:
        spread = heat(np.sqrt(futures.variance), full=0.3)
        lines.append(_Line(name="where they differ", frames=spread, begins=False))
    return lines


def by_action(futures: Futures) -> np.ndarray:
    """A column for each action: the last imagined frame, the simulator's, and where it differs from the first action's."""
    motion = _motion(futures)
    assert motion is not None
    poses = futures.start.batch.extrinsics
    truth = futures.truth
    cells = what_if_cells(
        futures.start.present,
        futures.pictures,
        motion,
        truth=None if truth is None else truth.frames,
        extrinsics=None if poses is None else poses[0].numpy(),
        scale=_scale(futures),
    )
    rows = what_if_rows(len(futures.start.cameras), truth=truth is not None, reference=futures.names[0])
    for v, camera in enumerate(futures.start.cameras):
        rows = [row.replace(f"view {v + 1}:", f"{camera}:") for row in rows]
    return labelled(cells, rows=rows, heads=["now", *futures.names], groups=(1,))


def grids(futures: Futures, *, most: int = 4, size: int = 150) -> np.ndarray:
    """The true cells above the imagined ones, at the present and at every moment to come; those that are not there are red."""
    filled, truth = futures.filled, futures.truth
    assert filled is not None
    true = None if truth is None else truth.filled
    shown = [0, *(1 + t for t in thinned(len(futures.offsets), 5))]
    cells: Cells = []
    names: list[str] = []
    for r in range(min(most, len(futures))):
        if true is not None and truth is not None and (truth.each or r == 0):
            names.append(f"true cells, {truth.source}")
            paint = None if truth.colours is None else truth.colours[r]
            cells.append(
                [draw_voxels(true[r, t], colours=None if paint is None else paint[t], size=size) for t in shown]
            )
        names.append("imagined cells" + (f", {futures.names[r]}" if len(futures) > 1 else ""))
        wrong = None if true is None else filled[r] & ~true[r]
        paint = None if futures.colours is None else futures.colours[r]
        cells.append(
            [
                draw_voxels(
                    filled[r, t],
                    wrong=None if wrong is None else wrong[t],
                    colours=None if paint is None else paint[t],
                    size=size,
                )
                for t in shown
            ]
        )
    heads = ["now", *(f"+{futures.seconds[t - 1]:.2f} s" for t in shown[1:])]
    return labelled(cells, rows=names, heads=heads)


def html(futures: Futures) -> str:
    """What a notebook shows: what was asked, the strip, how far it is from the truth, and the animation folded away."""
    truth = futures.truth
    told = dict.fromkeys(futures.instructions)
    words = f"told “{'”, “'.join(told)}” · " if any(told) else ""
    beside = {"recorded": "what came was recorded", "simulator": "the simulator says what comes of each action"}
    facts = [f"{futures.steps} sampling step{'s' if futures.steps > 1 else ''}"]
    facts.append(beside[truth.source] if truth is not None else futures.why_no_truth)
    errors = futures.errors
    if errors is not None and truth is not None:
        copied = np.abs(futures.start.present[None, :, None] / 255 - truth.frames / 255).mean(axis=(1, 2, 3, 4, 5))
        each = ", ".join(f"{name} {error:.4f}" for name, error in zip(futures.names, errors, strict=True))
        facts.append(f"mean difference to it: {each} (copying the present {copied.mean():.4f})")
    if len(futures) > 1:
        facts.append(f"the futures differ by {futures.spread:.4f} (standard deviation, mean over pixels)")
    title = futures.title + (f" ({futures.names[0]})" if len(futures) == 1 and futures.actions is not None else "")
    strip, film = data_uri(futures._repr_png_(), "png"), data_uri(animation(futures), "webp")
    return (
        f"<p><b>{escape(title)}</b> · {escape(words + '; '.join(facts))}.</p>"
        f"<img src='{strip}' alt='{escape(futures.title)}'>"
        f"<details><summary>watch it</summary><img src='{film}' alt='animation'></details>"
    )


def moving(futures: Futures) -> np.ndarray:
    """(1 + T, H, W, 3) uint8: all futures side by side, each under its name, from the present on."""
    truth, pictures = futures.truth, futures.pictures
    items: list[tuple[str, np.ndarray]] = []
    if truth is not None and not truth.each:
        items.append(("what came", truth.frames[0]))
    for r, name in enumerate(futures.names):
        items.append((name, pictures[r]))
        if truth is not None and truth.each:
            items.append((f"{truth.source}, {name}", truth.frames[r]))
    columns = 2 if truth is not None and truth.each else max(1, round(np.sqrt(len(items))))
    scale = max(1, round((128 if len(items) <= 4 else 64) / futures.start.present.shape[1]))
    films = [
        [
            captioned(enlarge(np.concatenate(list(moment), axis=1), scale), name)
            for moment in [futures.start.present, *np.moveaxis(frames, 1, 0)]
        ]
        for name, frames in items
    ]
    blank = np.full_like(films[0][0], 255)
    films += [[blank] * len(films[0])] * (-len(films) % columns)
    lines = [films[k : k + columns] for k in range(0, len(films), columns)]
    return np.stack(
        [
            np.concatenate([np.concatenate([film[t] for film in line], axis=1) for line in lines])
            for t in range(len(films[0]))
        ]
    )


def animation(futures: Futures, *, kind: str = "webp", pace: float | None = None) -> bytes:
    """A looping picture."""
    frames = moving(futures)[:, None]
    return animate(frames, fps=pace or _pace(futures), kind="gif" if kind == "gif" else "webp", scale=1, longest=400)


def save(futures: Futures, path: Path, *, pace: float | None = None) -> None:
    """Write the file that the path's ending says."""
    ending = path.suffix[1:]
    if ending == "png":
        write_bytes(path, futures._repr_png_())
    elif ending in ("gif", "webp"):
        write_bytes(path, animation(futures, kind=ending, pace=pace))
    elif ending == "mp4":
        frames = moving(futures)
        height, width = (side + side % 2 for side in frames.shape[1:3])
        even = [_padded(frame, width, height) for frame in frames]
        write_bytes(path, encode_video(even, fps=pace or _pace(futures)))
    else:
        _record(futures, path)


def _record(futures: Futures, path: Path) -> None:
    truth, start = futures.truth, futures.start
    lanes = []
    if truth is not None:
        lanes += [
            Lane(
                name=name,
                frames=truth.frames[r],
                actions=None,
                filled=None if truth.filled is None else truth.filled[r],
                colours=None if truth.colours is None else truth.colours[r],
            )
            for r, name in enumerate([f"{truth.source} {n}" for n in futures.names] if truth.each else [truth.source])
        ]
    lanes += [
        Lane(
            name=name,
            frames=futures.pictures[r],
            actions=None if futures.actions is None else futures.actions[r],
            filled=None if futures.filled is None else futures.filled[r],
            colours=None if futures.colours is None else futures.colours[r],
        )
        for r, name in enumerate(futures.names)
    ]
    matrices = (start.batch.intrinsics, start.batch.extrinsics)
    write_recording(
        path,
        title=futures.title,
        present=start.present,
        cameras=start.cameras,
        seconds=futures.seconds,
        lanes=lanes,
        action_names=() if futures.space is None else futures.space.names,
        rate_hz=start.rate_hz,
        grid=futures.grid,
        intrinsics=None if matrices[0] is None else matrices[0][0].numpy(),
        extrinsics=None if matrices[1] is None else matrices[1][0].numpy(),
    )


def _only_actions_differ(futures: Futures) -> bool:
    return _motion(futures) is not None and len(futures) > 2 and len(set(futures.instructions)) == 1


def _motion(futures: Futures) -> np.ndarray | None:
    """(R, 3): the mean motion of each row's actions, of 1 where it is longest; None where they are not known."""
    if futures.actions is None or futures.space is None:
        return None
    dims = motion_of(futures.space)
    moves = np.zeros((len(futures), 3))
    moves[:, : len(dims)] = mean_motion(futures.actions, dims, absolute=futures.space.kind == "absolute")
    return moves / max(float(np.linalg.norm(moves, axis=1).max()), 1e-9)


def _camera(futures: Futures, view: int) -> np.ndarray | None:
    poses = futures.start.batch.extrinsics
    return None if poses is None else poses[0, view].numpy()


def _scale(futures: Futures) -> int:
    return max(1, round(SIDE / futures.start.present.shape[1]))


def _pace(futures: Futures) -> float:
    """Frames a second: as it happens, but no faster than lets it last three seconds."""
    moments = 1 + len(futures.offsets)
    return min(moments / max(futures.seconds[-1], 1e-6), moments / LONGEST_S)


def _padded(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """On white, to that size."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return canvas
