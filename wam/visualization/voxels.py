"""Voxel grids as pictures: cubes seen from a corner, and what a model predicted beside what was there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wam.evaluation.latent_action.pictures import Strip
from wam.evaluation.occupancy import Example, OccupancyEvaluation
from wam.evaluation.summary import write_summary
from wam.visualization.latent_action import save_strips

LOW, HIGH, WRONG = np.array([68, 84, 140.0]), np.array([253, 222, 96.0]), np.array([214, 60, 60.0])
FACES = (  # corners of the three faces that this view shows, and how bright each is
    (((0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)), 1.0),
    (((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)), 0.72),
    (((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)), 0.85),
)


def draw_voxels(
    filled: np.ndarray, *, wrong: np.ndarray | None = None, size: int = 192, turn: float = 35.0, tilt: float = 32.0
) -> np.ndarray:
    """(X, Y, Z) bool -> (size, size, 3) uint8, seen from high x and low y, turned by `turn` degrees and from `tilt` above.

    Colours go by height; voxels that are `wrong` (X, Y, Z) are red.
    """
    a, e = math.radians(turn), math.radians(tilt)
    right = np.array([math.sin(a), math.cos(a), 0.0])
    away = np.array([-math.cos(a) * math.cos(e), math.sin(a) * math.cos(e), -math.sin(e)])
    up = np.array([-math.cos(a) * math.sin(e), math.sin(a) * math.sin(e), math.cos(e)])
    shape = np.array(filled.shape, float)
    corners = np.stack(np.meshgrid(*[(0, n) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    flat = np.stack([corners @ right, -(corners @ up)], axis=-1)
    low, span = flat.min(0), np.ptp(flat, axis=0).max()
    scale, margin = (size - 8) / span, (span - np.ptp(flat, axis=0)) / 2
    places = np.argwhere(filled)
    places = places[np.argsort(-(places @ away), kind="stable")]
    canvas = Image.new("RGB", (2 * size, 2 * size), (255, 255, 255))  # twice as large: smooth edges when halved
    draw = ImageDraw.Draw(canvas)
    for place in places:
        height = place[2] / max(1, filled.shape[2] - 1)
        colour = LOW + (HIGH - LOW) * height
        if wrong is not None and wrong[tuple(place)]:
            colour = WRONG
        for face, light in FACES:
            points = place + np.array(face, float)
            seen = np.stack([points @ right, -(points @ up)], axis=-1)
            pixels = ((seen - low + margin) * scale + 4) * 2
            draw.polygon([tuple(p) for p in pixels.tolist()], fill=tuple((colour * light).astype(int).tolist()))
    return np.asarray(canvas.resize((size, size), Image.Resampling.LANCZOS))


def example_strip(example: Example, *, seconds: list[float], name: str, size: int = 192) -> Strip:
    """What the cameras saw, the true voxels and the predicted ones, at the present and at each frame to come. Predicted
    voxels that are not there are red."""
    side = np.stack(
        [
            np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.NEAREST))
            for frame in example.pictures[0]
        ]
    )
    truth = np.stack([draw_voxels(grid, size=size) for grid in example.truth])
    predicted = np.stack(
        [
            draw_voxels(grid, wrong=grid & ~real, size=size)
            for grid, real in zip(example.predicted, example.truth, strict=True)
        ]
    )
    when = ", ".join(["now", *(f"in {s:.2f} s" for s in seconds)])
    return Strip(
        name=name,
        title=f"{example.task}: {when}. Predicted voxels that are not there are red.",
        rows=("seen", "true voxels", "predicted"),
        frames=np.stack([side, truth, predicted]),
    )


def save_evaluation(found: OccupancyEvaluation, folder: Path, *, seed: int, also: Path | None = None) -> list[Path]:
    """summary.json (to `also` too) and a PNG for each example. Returns the pictures."""
    strips = [
        example_strip(example, seconds=found.seconds, name=f"voxels_{number}")
        for number, example in enumerate(found.examples)
    ]
    counts = {figure.name: figure.n for figure in found.figures}
    extra = {"unmeasured": found.unmeasured, "pictures": {strip.name: strip.title for strip in strips}}
    for path in (folder / "summary.json", *([also] if also else [])):
        write_summary(path, found.values, n=counts, seeds=[seed], extra=extra)
    return save_strips(strips, folder, scale=1)
