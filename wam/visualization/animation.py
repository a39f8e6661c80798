"""Rollouts as small looping pictures."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image

from wam.contracts import expected
from wam.visualization.images import check_frames, data_uri, enlarge

SUCCESS, FAILURE = (38, 162, 105), (210, 60, 60)


def animate(
    frames: np.ndarray,
    *,
    fps: float = 12,
    kind: Literal["webp", "gif"] = "webp",
    success: bool | None = None,
    scale: int = 2,
    longest: int = 80,
) -> bytes:
    """Frames (T, V, H, W, C) uint8, views side by side, as a looping picture; the last frame is held for a second.

    success draws a frame of green or red round the held picture. More than `longest` frames are thinned evenly, at the
    same speed.
    """
    check_frames(frames, "T V H W C")
    if fps <= 0 or not len(frames):
        raise expected("at least one frame and a speed above 0", got=f"{len(frames)} and {fps}", do="correct them")
    keep = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), longest)).round().astype(int))
    pictures = [enlarge(np.concatenate(list(frames[t]), 1), scale) for t in keep]
    if success is not None:
        edge = max(2, scale)
        held = pictures[-1].copy()
        inner = held[edge:-edge, edge:-edge].copy()
        held[:] = SUCCESS if success else FAILURE
        held[edge:-edge, edge:-edge] = inner
        pictures[-1] = held
    each = round(1000 / fps * len(frames) / len(keep))
    durations = [each] * (len(pictures) - 1) + [1000]
    images = [Image.fromarray(p) for p in pictures]
    if kind == "gif":
        images = [image.quantize(128, dither=Image.Dither.NONE) for image in images]
    file = io.BytesIO()
    options = {"quality": 88, "method": 4} if kind == "webp" else {"disposal": 1}
    images[0].save(file, format=kind, save_all=True, append_images=images[1:], duration=durations, loop=0, **options)
    return file.getvalue()


def animation_uri(frames: np.ndarray, *, fps: float = 12, success: bool | None = None) -> str:
    """An animation as a data URI: WebP, or GIF where Pillow was built without it."""
    from PIL import features

    kind: Literal["webp", "gif"] = "webp" if features.check("webp") else "gif"
    return data_uri(animate(frames, fps=fps, kind=kind, success=success), kind)
