"""Arrays to pictures: enlarging, gaps, heat maps of differences, arrows, and data URIs for pages without other files."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from wam.contracts import expected

HEAT = np.array([(16, 12, 36), (88, 24, 110), (190, 54, 84), (249, 142, 62), (252, 236, 164)], np.float32)
"""Dark to bright, for absolute differences."""


def check_frames(frames: np.ndarray, dims: str) -> None:
    """uint8 with as many axes as `dims` names, the last holding RGB."""
    wanted = len(dims.split())
    if frames.dtype != np.uint8 or frames.ndim != wanted or frames.shape[-1] != 3:
        raise expected(
            f"8-bit RGB frames of shape ({', '.join(dims.split())})",
            got=f"{frames.dtype} of shape {frames.shape}",
            do="convert floats in [0, 1] by `wam.evaluation.pictures.to_uint8`",
        )


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """(H, W, C) with every pixel `scale` times as large, edges kept sharp."""
    return image.repeat(scale, 0).repeat(scale, 1)


def heat(difference: np.ndarray, *, full: float = 0.6) -> np.ndarray:
    """Absolute difference (..., H, W) in [0, 1] to RGB (..., H, W, 3); `full` and more is the brightest."""
    place = np.clip(difference / full, 0, 1) ** 0.7 * (len(HEAT) - 1)
    low = np.minimum(place.astype(int), len(HEAT) - 2)
    share = (place - low)[..., None]
    return (HEAT[low] * (1 - share) + HEAT[low + 1] * share).astype(np.uint8)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest absolute difference over channels of two uint8 images (..., H, W, 3), in [0, 1]."""
    return np.abs(a.astype(np.float32) - b.astype(np.float32)).max(-1) / 255


def table(cells: Sequence[Sequence[np.ndarray | None]], *, gap: int = 2, groups: Sequence[int] = ()) -> np.ndarray:
    """Images (H, W, 3) of one size in rows and columns, with see-through gaps: (rows, columns, 4).

    None leaves a cell empty. groups: columns before which the gap is three times as wide.
    """
    height, width = next(cell for row in cells for cell in row if cell is not None).shape[:2]
    columns = len(cells[0])
    left, lefts = 0, []
    for c in range(columns):
        left += 2 * gap if c in groups else 0
        lefts.append(left)
        left += width + gap
    canvas = np.zeros((len(cells) * (height + gap) - gap, left - gap, 4), np.uint8)
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            if cell is not None:
                top = r * (height + gap)
                canvas[top : top + height, lefts[c] : lefts[c] + width, :3] = cell
                canvas[top : top + height, lefts[c] : lefts[c] + width, 3] = 255
    return canvas


def arrow(image: np.ndarray, direction: Sequence[float], *, colour: tuple[int, int, int] = (255, 70, 70)) -> np.ndarray:
    """Draw an arrow in the upper left corner of (H, W, 3): `direction` is right and down, of length 1 at most.

    A direction shorter than a tenth becomes a dot: nothing moves, or towards the viewer.
    """
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    height, width = image.shape[:2]
    reach = 0.17 * min(height, width)
    x = y = 1.25 * reach
    dx, dy = (float(d) * reach for d in direction)
    x, y = x - dx / 2, y - dy / 2
    stroke = max(2, round(min(height, width) / 60))
    length = math.hypot(dx, dy)
    if length < 0.1 * reach:
        r = stroke * 1.5
        draw.ellipse([x - r, y - r, x + r, y + r], fill=colour, outline=(255, 255, 255))
        return np.asarray(picture)
    tip, (ux, uy) = (x + dx, y + dy), (dx / length, dy / length)
    head = max(3 * stroke, 0.3 * length)
    base = (tip[0] - ux * head, tip[1] - uy * head)
    sides = [(base[0] - s * uy * head * 0.55, base[1] + s * ux * head * 0.55) for s in (1, -1)]
    for extra, ink in ((2, (255, 255, 255)), (0, colour)):
        draw.line([(x, y), base], fill=ink, width=stroke + extra)
        draw.polygon([tip, *sides], fill=ink)
        if extra:
            draw.line([tip, *sides, tip], fill=ink, width=extra + 1)
    return np.asarray(picture)


def png(image: np.ndarray) -> bytes:
    """(H, W, 3 or 4) uint8 as PNG."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, format="PNG", optimize=True)
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """A picture's bytes as an address that holds them, for an HTML page; kind: png, gif or webp."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
