"""Depth maps as LeRobot v3 keeps them: a video of 12-bit codes, HEVC without loss, beside the camera's colours.

    observation.images.CAM_depth    dtype video, shape (H, W, 1), info is_depth_map, depth_unit m, video.depth_min ...

A code is a step on a logarithmic scale, finer where things are near; what the file gives back is the code that was put
in, so all that is lost is less than half a step: 0.8 mm at one metre, 1.6 at six. Code 0 means that nothing was measured.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from wam.contracts import expected

PIX_FMT = "gray12le"
LAST = 4095  # the highest code


@dataclass(frozen=True, kw_only=True)
class DepthEncoding:
    """nearest, farthest: metres of the codes 0 and 4095. shift: metres added before the logarithm; None: a linear scale.
    gop: a key frame every so many."""

    nearest: float = 0.01
    farthest: float = 10.0
    shift: float | None = 3.5
    gop: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.nearest < self.farthest or self.nearest + (self.shift or 1) <= 0:
            raise expected(
                "0 <= nearest < farthest, and nearest + shift above 0",
                got=(self.nearest, self.farthest, self.shift),
                do="correct the depth encoding",
            )

    def codes(self, depth: np.ndarray) -> np.ndarray:
        """Metres, 0 or less or not finite where nothing was measured -> uint16 codes; what is farther becomes `farthest`."""
        measured = np.isfinite(depth) & (depth > 0)
        place = self._place(np.where(measured, depth, self.farthest))
        found = np.rint(place * LAST).clip(1, LAST)
        return np.where(measured, found, 0).astype(np.uint16)

    def metres(self, codes: np.ndarray) -> np.ndarray:
        """Codes -> float32 metres, 0 where nothing was measured."""
        low, high = (self._scale(end) for end in (self.nearest, self.farthest))
        found = low + codes.astype(np.float64) / LAST * (high - low)
        if self.shift is not None:
            found = np.exp(found) - self.shift
        return np.where(codes > 0, found, 0).astype(np.float32)

    def _place(self, depth: np.ndarray) -> np.ndarray:
        low, high = (self._scale(end) for end in (self.nearest, self.farthest))
        depth = depth.astype(np.float64)
        return ((depth if self.shift is None else np.log(depth + self.shift)) - low) / (high - low)

    def _scale(self, depth: float) -> float:
        return depth if self.shift is None else math.log(depth + self.shift)

    def info(self, *, height: int, width: int, fps: float) -> dict[str, Any]:
        """The feature's `info` entry, in LeRobot's keys."""
        return {
            "video.height": height,
            "video.width": width,
            "video.codec": "hevc",
            "video.pix_fmt": PIX_FMT,
            "video.fps": fps,
            "video.channels": 1,
            "video.g": self.gop,
            "video.depth_min": self.nearest,
            "video.depth_max": self.farthest,
            "video.shift": self.shift or 0.0,
            "video.use_log": self.shift is not None,
            "is_depth_map": True,
            "depth_unit": "m",
            "has_audio": False,
        }

    @classmethod
    def of(cls, info: Mapping[str, Any] | None) -> DepthEncoding:
        """That of a feature's `info` entry; what it does not say is LeRobot's default."""
        info, usual = info or {}, cls()
        shift = info.get("video.shift", usual.shift)
        return cls(
            nearest=float(info.get("video.depth_min", usual.nearest)),
            farthest=float(info.get("video.depth_max", usual.farthest)),
            shift=float(shift) if info.get("video.use_log", True) else None,
            gop=int(info.get("video.g") or usual.gop),
        )


def encode_depth(depth: np.ndarray, *, fps: float, encoding: DepthEncoding | None = None) -> bytes:
    """(T, H, W) metres -> the bytes of an mp4 file whose frame i has the time i / fps."""
    encoding = encoding or DepthEncoding()
    if depth.ndim != 3 or not len(depth) or depth.dtype.kind != "f":
        raise expected(
            "depth as metres of shape (T, H, W)", got=f"{depth.dtype} of shape {depth.shape}", do="convert it"
        )
    group = f"keyint={encoding.gop}:min-keyint={encoding.gop}:no-open-gop=1:scenecut=0:bframes=0"
    options = {"preset": "veryfast", "x265-params": f"lossless=1:{group}:log-level=none"}
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx265", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.pix_fmt, (stream.height, stream.width) = PIX_FMT, depth.shape[1:]
        stream.codec_context.thread_count = 1
        for number, codes in enumerate(encoding.codes(depth)):
            frame = av.VideoFrame.from_ndarray(codes, format=PIX_FMT)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
