"""Decoded pictures to the clip's size, and clips to closed-GOP H.264, without a detour over RGB.

A picture of the clip is one (3H/2, W) uint8 array as PyAV lays out yuv420p: H rows of brightness, then H/4 rows that
hold one colour difference at half the size, then H/4 rows of the other.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from wam.data.curation.probe import Picture
from wam.data.curation.shots import SIDE
from wam.data.video import VideoEncoding

_FORMAT = "yuv420p"


class Framer:
    """Brings pictures of one file to (height, width). Keeps its converters: making one costs more than a frame."""

    def __init__(self, size: tuple[int, int], *, aspect: float = 1.0) -> None:
        self.size, self.aspect = size, aspect
        self._scaler, self._plain = VideoReformatter(), VideoReformatter()

    def crop(self, picture: Picture) -> np.ndarray:
        """The picture upright, scaled so that it covers the size, its centre: (3H/2, W) uint8."""
        frame, turns = picture.frame, picture.turns
        height, width = self.size if turns % 2 == 0 else self.size[::-1]  # as the frame lies, before it is turned
        scale = max(height / frame.height, width / (frame.width * self.aspect))
        inner_h = max(height, 2 * round(frame.height * scale / 2))
        inner_w = max(width, 2 * round(frame.width * self.aspect * scale / 2))
        frame = self._uniform(self._scaler, frame, inner_h, inner_w)
        top, left = (inner_h - height) // 4 * 2, (inner_w - width) // 4 * 2
        planes = [
            np.rot90(plane[top // k : (top + height) // k, left // k : (left + width) // k], turns)
            for plane, k in zip(_planes(frame), (1, 2, 2), strict=True)
        ]
        out = np.empty((self.size[0] * 3 // 2, self.size[1]), np.uint8)
        rows, quarter = self.size[0], self.size[0] * self.size[1] // 4
        out[:rows] = planes[0]
        flat = out[rows:].reshape(-1)
        flat[:quarter].reshape(planes[1].shape)[:] = planes[1]
        flat[quarter:].reshape(planes[2].shape)[:] = planes[2]
        return out

    def small(self, picture: Picture) -> np.ndarray:
        """The whole picture, as it lies, with SIDE pixels along its longer side: (h, w, 3) uint8, blue green red."""
        import cv2

        frame = picture.frame
        if frame.format.name != _FORMAT:
            frame = self._plain.reformat(frame, format=_FORMAT, threads=1)
        scale = min(1.0, SIDE / max(frame.height, frame.width))
        height, width = max(8, round(frame.height * scale)), max(8, round(frame.width * scale))
        step = max(1, min(frame.height // (2 * height), frame.width // (2 * width)))  # large pictures are thinned first
        y, u, v = _planes(frame)
        shrunk = [
            cv2.resize(plane[::k, ::k] if k > 1 else plane, (width, height), interpolation=cv2.INTER_AREA)
            for plane, k in ((y, step), (u, max(1, step // 2)), (v, max(1, step // 2)))
        ]
        return cv2.cvtColor(cv2.merge(shrunk), cv2.COLOR_YUV2BGR)

    def _uniform(self, converter: VideoReformatter, frame: Any, height: int, width: int) -> Any:
        """yuv420p of this size, in the colours of standard television, which is what decoders take where nothing is said."""
        same = (frame.height, frame.width) == (height, width)
        other = frame.colorspace in (Colorspace.ITU709, 9, 10)  # the matrices of high definition and beyond
        full = frame.color_range == ColorRange.JPEG
        if same and frame.format.name == _FORMAT and not (other or full):
            return frame
        colours = {"src_colorspace": frame.colorspace, "dst_colorspace": Colorspace.ITU601} if other else {}
        return converter.reformat(
            frame, height=height, width=width, format=_FORMAT, interpolation=Interpolation.BICUBIC,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG, dst_color_range=ColorRange.MPEG, threads=1, **colours,
        )  # fmt: skip


def encode(pictures: Sequence[np.ndarray], *, fps: float, encoding: VideoEncoding) -> bytes:
    """(3H/2, W) uint8 pictures -> the bytes of an mp4 file; picture i has the time i / fps."""
    buffer = io.BytesIO()
    rows, width = pictures[0].shape
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream(
            encoding.codec, rate=Fraction(fps).limit_denominator(1001), options=encoding.options
        )
        stream.pix_fmt, stream.height, stream.width = encoding.pix_fmt, rows * 2 // 3, width
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format=_FORMAT)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def to_rgb(picture: np.ndarray) -> np.ndarray:
    """(3H/2, W) uint8 -> (H, W, 3) uint8."""
    return av.VideoFrame.from_ndarray(picture, format=_FORMAT).to_ndarray(format="rgb24", threads=1)


def _planes(frame: Any) -> list[np.ndarray]:
    """Views of the three planes: (h, w), and twice half of it rounded up."""
    sizes = ((frame.height, frame.width), *2 * (((frame.height + 1) // 2, (frame.width + 1) // 2),))
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, :width]
        for plane, (height, width) in zip(frame.planes, sizes, strict=True)
    ]
