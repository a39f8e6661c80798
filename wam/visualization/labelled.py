"""Tables of pictures that say what they show: names beside rows and over columns, in the picture itself."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wam.visualization.images import table

INK, PAPER, BAR = (59, 66, 82), (255, 255, 255), (29, 36, 48)
LINE = 15
"""Pixels of a line of words."""


def labelled(
    cells: Sequence[Sequence[np.ndarray | None]],
    *,
    rows: Sequence[str] = (),
    heads: Sequence[str] = (),
    gap: int = 4,
    groups: Sequence[int] = (),
) -> np.ndarray:
    """Pictures (H, W, 3) uint8 of one size in rows and columns on white, with their names: (height, width, 3) uint8.

    None leaves a cell empty. groups: columns before which the gap is three times as wide, as in `images.table`.
    """
    height, width = next(cell for row in cells for cell in row if cell is not None).shape[:2]
    wrapped = [textwrap.wrap(name, 18) or [""] for name in rows]
    left = 10 + max((_width(line) for lines in wrapped for line in lines), default=0) if rows else 0
    tops = [textwrap.wrap(head, max(4, width // 7)) or [""] for head in heads]
    top = 6 + LINE * max(map(len, tops)) if heads else 0
    pictures = table(cells, gap=gap, groups=groups)
    canvas = Image.new("RGB", (left + pictures.shape[1], top + pictures.shape[0]), PAPER)
    shown = Image.fromarray(pictures)
    canvas.paste(shown, (left, top), shown)
    draw = ImageDraw.Draw(canvas)
    for number, lines in enumerate(wrapped):
        middle = top + number * (height + gap) + height / 2
        for place, line in enumerate(lines):
            y = middle + (place - len(lines) / 2) * LINE
            draw.text((left - 8 - _width(line), y), line, fill=INK, font=_font())
    for number, lines in enumerate(tops):
        middle = left + number * (width + gap) + 2 * gap * sum(g <= number for g in groups) + width / 2
        for place, line in enumerate(lines):
            draw.text((middle - _width(line) / 2, top - 4 - LINE * (len(lines) - place)), line, fill=INK, font=_font())
    return np.asarray(canvas)


def captioned(picture: np.ndarray, words: str) -> np.ndarray:
    """(H, W, 3) under a dark bar with words in it, cut off where they do not fit: (H + 18, W, 3)."""
    while words and _width(words) > picture.shape[1] - 8:
        words = words[:-2] + "…" if len(words) > 2 else ""
    bar = Image.new("RGB", (picture.shape[1], LINE + 3), BAR)
    ImageDraw.Draw(bar).text((4, 1), words, fill=PAPER, font=_font())
    return np.concatenate([np.asarray(bar), picture])


@cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own lacks signs such as the minus."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 11)


def _width(words: str) -> int:
    return int(np.ceil(_font().getlength(words)))
