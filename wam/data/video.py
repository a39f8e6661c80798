"""Video files: encoding (closed-GOP H.264), probing without decoding, and exact frames by any decoder."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from wam.contracts import expected

CODEC_NAMES = {"libx264": "h264", "libx265": "hevc", "libsvtav1": "av1", "libaom-av1": "av1"}
TOLERANCE = 1e-4  # seconds between the time wanted and a frame's own; the format's figure


@dataclass(frozen=True, kw_only=True)
class VideoEncoding:
    """How frames become a file. The default has a key frame every `gop` frames, closed groups and no B-frames, so that
    every decoder seeks exactly and a random frame costs at most `gop` decoded ones."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    gop: int = 4
    crf: int = 18
    preset: str = "veryfast"

    @property
    def options(self) -> dict[str, str]:
        fixed = {"g": str(self.gop), "crf": str(self.crf), "preset": self.preset, "bf": "0"}
        return fixed | ({"flags": "+cgop", "sc_threshold": "0"} if self.codec == "libx264" else {})

    def info(self, *, height: int, width: int, fps: float) -> dict[str, Any]:
        """The feature's `info` entry, in LeRobot's keys."""
        return {
            "video.height": height,
            "video.width": width,
            "video.codec": CODEC_NAMES.get(self.codec, self.codec),
            "video.pix_fmt": self.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "video.g": self.gop,
            "video.crf": self.crf,
            "video.preset": self.preset,
            "has_audio": False,
        }


def encode_video(
    frames: np.ndarray | Iterable[np.ndarray], *, fps: float, encoding: VideoEncoding | None = None
) -> bytes:
    """(T, H, W, 3) uint8 frames -> the bytes of an mp4 file; frame i has the time i / fps."""
    encoding = encoding or VideoEncoding()
    buffer, count = io.BytesIO(), 0
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream(
            encoding.codec, rate=Fraction(fps).limit_denominator(1001), options=encoding.options
        )
        stream.pix_fmt = encoding.pix_fmt
        stream.codec_context.thread_count = 1
        for count, image in enumerate(frames, start=1):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise expected(
                    "frames as uint8 of shape (H, W, 3)",
                    got=f"{image.dtype} of shape {image.shape}",
                    do="convert them to 8-bit RGB, height first",
                )
            if count == 1:
                stream.height, stream.width = image.shape[:2]
                if "420" in encoding.pix_fmt and (stream.height % 2 or stream.width % 2):
                    raise expected(
                        f"an even height and width for {encoding.pix_fmt}",
                        got=f"{stream.height}x{stream.width}",
                        do="resize the frames or encode with pix_fmt yuv444p",
                    )
            elif image.shape[:2] != (stream.height, stream.width):
                raise expected(
                    f"every frame of {stream.height}x{stream.width}",
                    got=f"{image.shape[0]}x{image.shape[1]} at frame {count - 1}",
                    do="resize the frames to one size",
                )
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = count - 1
            container.mux(stream.encode(frame))
        if count == 0:
            raise expected("at least one frame", got="none", do="do not write empty episodes")
        container.mux(stream.encode(None))
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoInfo:
    """What a file says of itself, read from its packets without decoding.

    pts (T,): the frames' times in ticks, in the order of showing. key_pts, key_dts: those of the key frames.
    closed_gop: no frame is shown before the key frame that it comes after, so decoding may start at any key frame.
    """

    path: Path
    codec: str
    pix_fmt: str
    height: int
    width: int
    fps: float
    time_base: Fraction
    pts: np.ndarray
    key_pts: np.ndarray
    key_dts: np.ndarray
    closed_gop: bool
    b_frames: bool

    @property
    def frames(self) -> int:
        return len(self.pts)

    @property
    def times(self) -> np.ndarray:
        """(T,) float64 seconds."""
        return self.pts * float(self.time_base)

    def indices_at(self, times: np.ndarray, *, tolerance: float = TOLERANCE) -> np.ndarray:
        """The frames shown at these times (seconds). Raises WamError where no frame lies within the tolerance."""
        own, times = self.times, np.asarray(times, np.float64)
        right = np.clip(np.searchsorted(own, times), 1, max(1, len(own) - 1))
        right = np.minimum(right, len(own) - 1)
        left = np.maximum(right - 1, 0)
        nearest = np.where(np.abs(own[left] - times) <= np.abs(own[right] - times), left, right)
        # float32 timestamps of long files are coarser than the tolerance
        allowed = tolerance + np.spacing(np.abs(times).astype(np.float32))
        if (wrong := np.abs(own[nearest] - times) > allowed).any():
            at = int(np.flatnonzero(wrong)[0])
            raise expected(
                f"a frame at {times[at]:.4f} s in {self.path}",
                got=f"the nearest at {own[nearest[at]]:.4f} s of {self.frames} frames to {own[-1]:.4f} s",
                do="check the episode's timestamps against the video with `wam data doctor`",
            )
        return nearest


def probe(path: Path | str) -> VideoInfo:
    """Read a file's packets. Raises WamError, one sentence, for a missing, empty or corrupt file."""
    path = Path(path)
    if not path.is_file():
        raise expected(f"a video at {path}", got="no such file", do="restore it or leave this camera out")
    stat = path.stat()
    return _probe(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _probe(path: Path, mtime: int, size: int) -> VideoInfo:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise expected(f"a video stream in {path}", got="none", do="replace the file")
            stream: Any = container.streams.video[0]
            packets = [
                (packet.pts, packet.dts, packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard
            ]
            context = stream.codec_context
            described = {
                "codec": context.name.removeprefix("lib").split("-")[0].replace("dav1d", "av1"),
                "pix_fmt": context.pix_fmt or "unknown",
                "height": context.height,
                "width": context.width,
                "fps": float(stream.average_rate or 0),
                "time_base": stream.time_base,
            }
    except (av.error.FFmpegError, OSError) as error:
        raise corrupt(path, error) from error
    if not packets or any(pts is None for pts, _, _ in packets) or not packets[0][2]:
        raise corrupt(path, "no readable frames" if not packets else "frames without times or a first key frame")
    order = np.array([pts for pts, _, _ in packets], np.int64)
    keys = np.array([key for _, _, key in packets])
    dts = np.array([pts if dts is None else dts for pts, dts, _ in packets], np.int64)
    latest_key = np.maximum.accumulate(np.where(keys, order, np.iinfo(np.int64).min))
    return VideoInfo(
        path=path,
        pts=np.sort(order),
        key_pts=order[keys],
        key_dts=dts[keys],
        closed_gop=bool((order >= latest_key).all()),
        b_frames=bool((np.diff(order) < 0).any()),
        **described,
    )


def corrupt(path: Path, reason: object) -> Exception:
    return expected(
        f"a readable video at {path}", got=str(reason), do="restore the file, or drop the episode and record it again"
    )


def read_frames(
    path: Path | str,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    timestamps: Sequence[float] | np.ndarray | None = None,
    backend: str = "auto",
) -> np.ndarray:
    """(T, H, W, 3) uint8 frames of one file, by their numbers or times (seconds); all of them if neither is given."""
    from wam.data.decoders import is_run, open_reader

    info = probe(path)
    if timestamps is not None:
        indices = info.indices_at(np.asarray(timestamps))
    elif indices is None:
        indices = np.arange(info.frames)
    indices = np.asarray(indices)
    return open_reader(info, backend, run=is_run(indices)).frames(indices)
