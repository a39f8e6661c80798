"""Latent actions as pictures: rows of frames with a word beside each row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wam.evaluation.figures import save_figures
from wam.evaluation.latent_action.evaluate import LatentActionEvaluation
from wam.evaluation.latent_action.pictures import Strip
from wam.files import write_bytes
from wam.visualization.images import check_frames, enlarge, png, table


def draw_strip(strip: Strip, *, scale: int = 2, gap: int = 4) -> bytes:
    """PNG of a table of frames, the word of each row on its left."""
    check_frames(strip.frames, "R N H W C")
    cells = [[enlarge(frame, scale) for frame in row] for row in strip.frames]
    pictures = table(cells, gap=gap)
    font = ImageFont.load_default(size=14)
    width = 12 + max(int(font.getlength(word)) for word in strip.rows)
    canvas = np.full((pictures.shape[0], pictures.shape[1] + width, 3), 255, np.uint8)
    seen = pictures[..., 3:] > 0
    canvas[:, width:] = np.where(seen, pictures[..., :3], 255)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    height = strip.frames.shape[2] * scale + gap
    for row, word in enumerate(strip.rows):
        draw.text((4, row * height + height // 2 - 10), word, fill=(40, 40, 40), font=font)
    return png(np.asarray(image))


def save_strips(strips: list[Strip], folder: Path, *, scale: int = 2) -> list[Path]:
    """One PNG a strip, named after it."""
    paths = []
    for strip in strips:
        paths.append(folder / f"{strip.name}.png")
        write_bytes(paths[-1], draw_strip(strip, scale=scale))
    return paths


def save_evaluation(found: LatentActionEvaluation, folder: Path, *, seed: int, also: Path | None = None) -> list[Path]:
    """summary.json (to `also` too) and a PNG for each strip, as `wam report` reads them. Returns the pictures."""
    paths = save_strips(found.strips, folder)
    titles = {strip.name: strip.title for strip in found.strips}
    save_figures(found, folder, seed=seed, also=also, extra={"notes": found.notes, "pictures": titles})
    return paths
