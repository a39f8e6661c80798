"""Images of foreign sources: videos decoded from their start, encoded stills, and the changes a user may ask for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from wam.contracts import expected

Flip = Literal["none", "vertical", "horizontal", "rotate"]
VIDEO_ENDINGS = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v")


def decode(path: Path) -> Iterator[np.ndarray]:
    """Every frame of a video in the order of showing, (H, W, 3) uint8. Decoding starts at the start, so no seek errs."""
    import av

    count = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
                count += 1
    except (av.FFmpegError, IndexError, OSError) as error:
        raise expected(
            f"a video that decodes to its end at {path}", got=f"{error} after {count} frames",
            do="fetch the file again, or leave its episode out with skip_damaged=true",
        ) from error  # fmt: skip
    if count == 0:
        raise expected(f"a video with frames at {path}", got="none", do="replace or remove the file")


def read_video(path: Path) -> np.ndarray:
    """All frames of a video, (T, H, W, 3) uint8."""
    return np.stack(list(decode(path)))


def decode_still(data: bytes, *, where: str) -> np.ndarray:
    """A JPEG or PNG as (H, W, 3) uint8."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise expected(
            f"a JPEG or PNG image in {where}", got=f"{len(data)} bytes that do not decode ({error})",
            do="remove or repair that episode",
        ) from error  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reshape:
    """Changes to every image: `size` (H, W) by covering and cropping the centre, then `flip`."""

    size: tuple[int, int] | None = None
    flip: Flip = "none"

    def __post_init__(self) -> None:
        if self.flip not in get_args(Flip):
            raise expected(f"flip among {', '.join(get_args(Flip))}", got=repr(self.flip), do="name one of them")
        if self.size is not None and (min(self.size) < 2 or any(side % 2 for side in self.size)):
            raise expected(
                "an image size of even sides", got=self.size, do="H.264 in 4:2:0 needs even height and width"
            )

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """frames (T, H, W, 3) -> (T, *size, 3)."""
        if self.size is not None and frames.shape[1:3] != self.size:
            frames = np.stack([cover(frame, self.size) for frame in frames])
        return np.ascontiguousarray(flipped(frames, self.flip))


def cover(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """frame (H, W, 3) resized so that it covers (height, width), its centre cropped."""
    from PIL import Image

    height, width = size
    scale = max(height / frame.shape[0], width / frame.shape[1])
    box_h, box_w = height / scale, width / scale
    top, left = (frame.shape[0] - box_h) / 2, (frame.shape[1] - box_w) / 2
    image = Image.fromarray(frame)
    box = (left, top, left + box_w, top + box_h)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=box))


def flipped(frames: np.ndarray, flip: Flip) -> np.ndarray:
    """frames (..., H, W, C), turned upside down, mirrored, or both."""
    if flip in ("vertical", "rotate"):
        frames = frames[..., ::-1, :, :]
    if flip in ("horizontal", "rotate"):
        frames = frames[..., ::-1, :]
    return frames
