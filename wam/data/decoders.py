"""Three decoders behind one small interface, and the choice between them.

`decord` reads runs of frames fastest, but silently returns wrong frames on open groups of pictures and HEVC, and cannot
open AV1: it is used only where the file's packets show that it is exact. `pyav` is exact on every file: it starts at a
key frame shown no later than the frame wanted and accepts only the frame with the wanted time; single frames and windows
it reads fastest. `torchcodec` needs the system's FFmpeg and is exact too, but misses frames of H.264 in open groups.
`auto` takes decord for runs of frames where it is installed and exact, and else pyav (`wam.data.benchmark.decoder_rates`
measures them).
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from wam.contracts import expected
from wam.data.depth import PIX_FMT as DEPTH_PIX_FMT
from wam.data.video import VideoInfo, corrupt

Backend = Literal["auto", "decord", "pyav", "torchcodec"]
SEEK_COST = 2  # a seek costs about as much as decoding this many frames
RUN = 16  # from this many consecutive frames on, reading is a run


class FrameReader(Protocol):
    """One open file. Not to be shared by threads nor carried over a fork."""

    def frames(self, indices: np.ndarray) -> np.ndarray:
        """(T,) frame numbers in the order of showing, in any order -> (T, H, W, 3) uint8; (T, H, W) uint16 codes of depth."""
        ...

    def close(self) -> None:
        """Give back the file and the decoder's memory now, not when the garbage collector comes by."""
        ...


def why_not_decord(info: VideoInfo) -> str | None:
    """Why decord is not exact on this file, or None where it is."""
    if importlib.util.find_spec("decord") is None:
        return "decord is not installed"
    if info.codec != "h264":
        return f"the codec is {info.codec}"
    if not info.closed_gop:
        return "its groups of pictures are open"
    if info.width < 64 and info.width % 32:
        return f"its rows, {info.width} pixels wide, are padded by decord, which then fails"
    return None


def why_not_torchcodec(info: VideoInfo) -> str | None:
    """Why torchcodec cannot read all of this file, or None where it can."""
    if importlib.util.find_spec("torchcodec") is None:
        return "torchcodec is not installed"
    if info.codec == "h264" and not info.closed_gop:
        return "its groups of pictures are open"
    return None


def is_run(indices: np.ndarray) -> bool:
    """True for many consecutive frames, as of a whole episode."""
    return len(indices) >= RUN and bool((np.diff(indices) == 1).all())


def choose_backend(info: VideoInfo, backend: str = "auto", *, run: bool = False) -> str:
    """The decoder to use on this file, for a run of frames or a few. Raises WamError if the named one is missing or
    would return wrong frames."""
    if backend not in ("auto", "decord", "pyav", "torchcodec"):
        raise expected("video_backend auto, decord, pyav or torchcodec", got=repr(backend), do="name one of the four")
    if backend in ("auto", "decord"):
        reason = why_not_decord(info)
        if backend == "auto":
            return "decord" if run and not reason else "pyav"
        if reason:
            raise expected(
                f"a closed-GOP H.264 video for decord at {info.path}",
                got=f"that {reason}",
                do="read it with video_backend='pyav' or 'auto'",
            )
    if backend == "torchcodec" and (reason := why_not_torchcodec(info)):
        raise expected(
            f"torchcodec and a video that it reads whole at {info.path}",
            got=f"that {reason}",
            do="pip install 'wam[torchcodec]' if it is missing, or use video_backend='pyav'",
        )
    return backend


def open_reader(info: VideoInfo, backend: str = "auto", *, run: bool = False) -> FrameReader:
    """A reader by that decoder; depth has one of its own, since the others give eight bits."""
    if info.pix_fmt == DEPTH_PIX_FMT:
        return DepthReader(info)
    return READERS[choose_backend(info, backend, run=run)](info)


def _checked(info: VideoInfo, indices: np.ndarray) -> np.ndarray:
    indices = np.asarray(indices, np.int64)
    if len(indices) and (indices.min() < 0 or indices.max() >= info.frames):
        raise expected(
            f"frame numbers from 0 to {info.frames - 1} in {info.path}",
            got=f"{indices.min()} to {indices.max()}",
            do="check the episode's length against its video",
        )
    return indices


class PyAVReader:
    """Exact on every codec that FFmpeg decodes; goes on decoding where that is cheaper than seeking."""

    channels: tuple[int, ...] = (3,)
    dtype: type[np.generic] = np.uint8

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        try:
            self._container = av.open(str(info.path))
        except (av.error.FFmpegError, OSError) as error:
            raise corrupt(info.path, error) from error
        self._stream: Any = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1
        self._converter = VideoReformatter()  # one for all frames: making one costs more than a small frame
        self._decoded: Iterator[Any] | None = None
        self._at = -1  # number of the last decoded frame

    def frames(self, indices: np.ndarray) -> np.ndarray:
        indices = _checked(self.info, indices)
        wanted, back = np.unique(indices, return_inverse=True)
        shown = np.empty((len(wanted), self.info.height, self.info.width, *self.channels), self.dtype)
        for row, index in enumerate(wanted):
            shown[row] = self._frame(int(index))
        return shown if len(wanted) == len(indices) and (back == np.arange(len(back))).all() else shown[back]

    def close(self) -> None:
        self._decoded = None
        self._container.close()

    def _frame(self, index: int) -> np.ndarray:
        info, wanted = self.info, int(self.info.pts[index])
        key = int(np.searchsorted(info.key_pts, wanted, side="right")) - 1
        key_index = int(np.searchsorted(info.pts, info.key_pts[key]))
        ahead = self._decoded is not None and index > self._at
        if not ahead or index - self._at > index - key_index + SEEK_COST:
            self._seek(key)
        try:
            while True:
                frame = self._advance(wanted)
                if frame is not None:
                    return self._pixels(frame)
                if key <= 0:
                    raise corrupt(info.path, f"no frame at {wanted * float(info.time_base):.4f} s")
                key -= 1  # a damaged or mislabelled key frame: start one earlier
                self._seek(key)
        except (av.error.FFmpegError, OSError) as error:
            self._decoded = None
            raise corrupt(info.path, error) from error

    def _pixels(self, frame: Any) -> np.ndarray:
        return self._converter.reformat(frame, format="rgb24", threads=1).to_ndarray()

    def _seek(self, key: int) -> None:
        self._container.seek(int(self.info.key_dts[key]), stream=self._stream, backward=True)
        self._decoded = self._container.decode(self._stream)

    def _advance(self, wanted: int) -> Any:
        """Decode up to the frame whose time is exactly the wanted one; None if it does not come."""
        assert self._decoded is not None
        for frame in self._decoded:
            if frame.pts == wanted:
                self._at = int(np.searchsorted(self.info.pts, wanted))
                if frame.is_corrupt:
                    raise corrupt(self.info.path, f"a damaged frame at {wanted * float(self.info.time_base):.4f} s")
                return frame
            if frame.pts > wanted:
                break
        self._decoded = None
        return None


class DepthReader(PyAVReader):
    """The 12-bit codes of a depth video, as they are."""

    channels = ()
    dtype = np.uint16

    def _pixels(self, frame: Any) -> np.ndarray:
        return frame.to_ndarray()


class DecordReader:
    """decord on one thread. Opens only files on which it is exact (`why_not_decord`)."""

    def __init__(self, info: VideoInfo) -> None:
        import decord

        self.info = info
        decord.logging.set_level(decord.logging.QUIET)
        try:
            self._reader: Any = decord.VideoReader(str(info.path), ctx=decord.cpu(0), num_threads=1)
        except (RuntimeError, decord.DECORDError) as error:
            raise corrupt(info.path, _first_line(error)) from error
        if len(self._reader) != info.frames:
            raise corrupt(info.path, f"{len(self._reader)} frames by decord where the packets hold {info.frames}")

    def frames(self, indices: np.ndarray) -> np.ndarray:
        import decord

        indices = _checked(self.info, indices)
        if not len(indices):
            return np.empty((0, self.info.height, self.info.width, 3), np.uint8)
        try:
            return self._reader.get_batch(indices.tolist()).asnumpy()
        except (RuntimeError, decord.DECORDError) as error:
            raise corrupt(self.info.path, _first_line(error)) from error

    def close(self) -> None:
        self._reader = None


class TorchcodecReader:
    """torchcodec in its exact seek mode."""

    def __init__(self, info: VideoInfo) -> None:
        try:
            from torchcodec.decoders import VideoDecoder
        except (RuntimeError, OSError) as error:
            raise expected(
                "torchcodec to find FFmpeg's libraries",
                got=_first_line(error),
                do="install the system's ffmpeg or use video_backend='pyav'",
            ) from error
        self.info = info
        try:
            self._decoder: Any = VideoDecoder(
                str(info.path), seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=1
            )
        except (RuntimeError, ValueError) as error:
            raise corrupt(info.path, _first_line(error)) from error

    def frames(self, indices: np.ndarray) -> np.ndarray:
        indices = _checked(self.info, indices)
        try:
            return self._decoder.get_frames_at(indices=indices.tolist()).data.numpy()
        except (RuntimeError, ValueError) as error:
            raise corrupt(self.info.path, _first_line(error)) from error

    def close(self) -> None:
        self._decoder = None


READERS: dict[str, Callable[[VideoInfo], FrameReader]] = {
    "pyav": PyAVReader,
    "decord": DecordReader,
    "torchcodec": TorchcodecReader,
}


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


class ReaderPool:
    """Open readers, a few for each thread of each process: none is shared, carried over a fork or pickled."""

    def __init__(self, backend: str = "auto", *, size: int = 8) -> None:
        self.backend, self.size = backend, size
        self._local, self._pid = threading.local(), os.getpid()
        self._inherited: list[Any] = []

    def frames(self, info: VideoInfo, indices: np.ndarray) -> np.ndarray:
        if self._pid != os.getpid():  # after a fork: closing the parent's readers here would hang, so they are kept
            self._inherited.append(self._local)
            self._local, self._pid = threading.local(), os.getpid()
        readers = cast("OrderedDict[Any, FrameReader]", self._local.__dict__.setdefault("readers", OrderedDict()))
        run = self.backend == "auto" and is_run(indices)
        reader = readers.pop((info, run), None) or open_reader(info, self.backend, run=run)
        readers[info, run] = reader
        while len(readers) > self.size:
            readers.popitem(last=False)[1].close()
        return reader.frames(indices)

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend, "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]
