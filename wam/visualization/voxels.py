"""Voxel grids as pictures: cubes seen from a corner, and what a model predicted beside what was there."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wam.evaluation.figures import save_figures
from wam.evaluation.latent_action.pictures import Strip
from wam.evaluation.occupancy import Example, OccupancyEvaluation
from wam.files import write_bytes
from wam.visualization.latent_action import save_strips
from wam.visualization.run_files import ANGLES, TURNED

LOW, HIGH, WRONG = np.array([68, 84, 140.0]), np.array([253, 222, 96.0]), np.array([214, 60, 60.0])
LIGHT = (0.72, 0.85, 1.0)  # of faces across x, y and z


def draw_voxels(
    filled: np.ndarray,
    *,
    wrong: np.ndarray | None = None,
    colours: np.ndarray | None = None,
    size: int = 192,
    turn: float = 35.0,
    tilt: float = 32.0,
) -> np.ndarray:
    """(X, Y, Z) bool -> (size, size, 3) uint8, seen from `tilt` degrees above, and from high x turned by `turn` degrees
    towards low y.

    Voxels have their own colours, (X, Y, Z, 3) uint8, or where these have a fourth number that is 0, and where none are given,
    one that goes by height; those that are `wrong` (X, Y, Z) are red.
    """
    a, e = math.radians(turn), math.radians(tilt)
    right = np.array([math.sin(a), math.cos(a), 0.0])
    away = np.array([-math.cos(a) * math.cos(e), math.sin(a) * math.cos(e), -math.sin(e)])
    up = np.cross(right, away)
    shape = np.array(filled.shape, float)
    middle, reach = shape / 2, np.linalg.norm(shape) / 2  # the same scale from every side
    places = np.argwhere(filled)
    places = places[np.argsort(-(places @ away), kind="stable")]
    canvas = Image.new("RGB", (2 * size, 2 * size), (255, 255, 255))  # twice as large: smooth edges when halved
    draw = ImageDraw.Draw(canvas)
    faces = [(_face(axis, away[axis] < 0) - middle, light) for axis, light in enumerate(LIGHT)]
    flat = [(np.stack([face @ right, -(face @ up)], axis=-1), light) for face, light in faces]
    flat_places = np.stack([places @ right, -(places @ up)], axis=-1)
    scale = size / reach
    shades = voxel_colours(places, filled.shape, colours)
    for place, base, colour in zip(places, flat_places, shades, strict=True):
        if wrong is not None and wrong[tuple(place)]:
            colour = WRONG
        for face, light in flat:
            pixels = (base + face) * scale + size
            draw.polygon([tuple(p) for p in pixels.tolist()], fill=tuple((colour * light).astype(int).tolist()))
    return np.asarray(canvas.resize((size, size), Image.Resampling.LANCZOS))


def voxel_colours(places: np.ndarray, shape: tuple[int, ...], colours: np.ndarray | None) -> np.ndarray:
    """(N, 3) floats to 255, of voxels at places (N, 3) of a grid: their own (X, Y, Z, 3 or 4) where they are known, else by
    height."""
    by_height = LOW + (HIGH - LOW) * places[:, 2:] / max(1, shape[2] - 1)
    if colours is None:
        return np.asarray(by_height)
    own = colours[tuple(places.T)]
    return np.where(own[:, 3:] > 0, own[:, :3], by_height) if own.shape[1] == 4 else own.astype(float)


def _face(axis: int, far: bool) -> np.ndarray:
    """(4, 3): corners of a unit cube's face across an axis, in order around it."""
    corners = np.zeros((4, 3))
    corners[:, [i for i in range(3) if i != axis]] = [(0, 0), (1, 0), (1, 1), (0, 1)]
    corners[:, axis] = float(far)
    return corners


def drawn(example: Example, *, size: int, turn: float = 35.0) -> tuple[np.ndarray, np.ndarray]:
    """(T, size, size, 3) each: the true grids, and the predicted ones with what is not there in red."""
    unknown = [None] * len(example.truth)
    own, said = (unknown if c is None else c for c in (example.true_colour, example.predicted_colour))
    true = [draw_voxels(grid, colours=c, size=size, turn=turn) for grid, c in zip(example.truth, own, strict=True)]
    predicted = [
        draw_voxels(grid, wrong=grid & ~real, colours=c, size=size, turn=turn)
        for grid, real, c in zip(example.predicted, example.truth, said, strict=True)
    ]
    return np.stack(true), np.stack(predicted)


def example_strip(example: Example, *, seconds: list[float], name: str, size: int = 192) -> Strip:
    """What the first camera saw, the true voxels and the predicted ones, at the present and at each frame to come."""
    seen = [Image.fromarray(frame).resize((size, size), Image.Resampling.NEAREST) for frame in example.pictures[0]]
    true, predicted = drawn(example, size=size)
    when = ", ".join(["now", *(f"in {s:.2f} s" for s in seconds)])
    return Strip(
        name=name,
        title=f"{example.task}: {when}. Predicted voxels that are not there are red.",
        rows=("seen", "true", "predicted"),
        frames=np.stack([np.stack([np.asarray(image) for image in seen]), true, predicted]),
    )


def turntable(example: Example, *, size: int = 160) -> bytes:
    """PNG of true grids above predicted ones, drawn from `ANGLES` sides, one below the other."""
    sides = []
    for k in range(ANGLES):
        true, predicted = drawn(example, size=size, turn=35.0 + k * 360 / ANGLES)
        sides.append(np.concatenate([np.concatenate(list(row), axis=1) for row in (true, predicted)]))
    image = Image.fromarray(np.concatenate(sides)).quantize(64)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def save_evaluation(found: OccupancyEvaluation, folder: Path, *, seed: int, also: Path | None = None) -> list[Path]:
    """summary.json (to `also` too) and a PNG for each example. Returns the pictures."""
    strips = [
        example_strip(example, seconds=found.seconds, name=f"voxels_{number}")
        for number, example in enumerate(found.examples)
    ]
    for example, strip in zip(found.examples, strips, strict=True):
        write_bytes(folder / f"{strip.name}{TURNED}.png", turntable(example))
    pictures = {strip.name: strip.title for strip in strips}
    save_figures(found, folder, seed=seed, also=also, extra={"pictures": pictures})
    return save_strips(strips, folder, scale=1)
