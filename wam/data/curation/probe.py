"""What a raw file is: `open_video` gives its picture stream or refuses with a reason, `RawVideo.pictures` its frames.

Phones turn pictures by a note in the header, screen recorders write a frame only when something changes, and pixels
need not be square. All of that is read here once: a frame comes with its own time and how it has to be turned.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import av
from av.stream import Disposition

from wam.contracts import WamError
from wam.data.curation.records import Item, Reason

_DAMAGES = 20  # after so many broken places the rest of a file is given up
_BACKWARDS = 10  # frames out of order that are no accident any more
_LOCAL = {"protocol_whitelist": "file"}  # a playlist in disguise reaches nothing else


class RefusedError(WamError):
    """A file that cannot be used; reason is the record's word for it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Picture(NamedTuple):
    """A decoded frame. time: when it is shown, in seconds. turns: quarter turns, counter-clockwise, to see it upright."""

    frame: Any
    time: float
    turns: int


class Damage(NamedTuple):
    """Frames are missing or wrong from `time` (seconds) to the next picture that is given."""

    time: float
    reason: Reason
    detail: str


class RawVideo:
    """An open file. seconds and fps: as the header has them, 0 where it says nothing. aspect: a pixel's width over its
    height."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self._open()
        stream = self._stream
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else 0.0
        self.aspect = float(stream.sample_aspect_ratio or 0) or 1.0
        length = stream.duration and stream.duration * stream.time_base
        self.seconds = float(length or (self._container.duration or 0) / av.time_base)
        self.height, self.width = stream.codec_context.height, stream.codec_context.width

    def __enter__(self) -> RawVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def pictures(self, start: float | None = None) -> Iterator[Picture | Damage]:
        """Frames in the order of showing, from the first one at `start` (seconds) on.

        After a broken place the frames go on with the next key frame, and a `Damage` stands between. A file that ends
        before its header says so ends with one.
        """
        if start is None:
            yield from self._decoded()
            return
        soon = start - 1e-6
        self._container.seek(int(start / self._stream.time_base), stream=self._stream, backward=True)
        pictures, first = self._decoded(), True
        for one in pictures:
            if first and one.time > start + 1e-6:  # the file's index misled: look for the place from the beginning
                self.close()
                self._open()
                yield from (other for other in self._decoded() if other.time >= soon)
                return
            first = False
            if one.time >= soon:
                yield one

    def _open(self) -> None:
        item = self.item
        if item.size == 0:
            raise RefusedError("empty", "the file holds no bytes")
        try:
            self._container: Any = av.open(_source(item), options=_LOCAL)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise RefusedError("unreadable", _said(error)) from error
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams or streams[0].codec_context is None:
            self._container.close()
            what = "a codec that is not known" if streams else "no moving pictures: sound, text or a cover only"
            raise RefusedError("unreadable" if streams else "no video", what)
        self._stream: Any = streams[0]
        self._stream.codec_context.thread_count = 1

    def _decoded(self) -> Iterator[Picture | Damage]:
        base, rate = float(self._stream.time_base), self.fps or 30.0
        last, damages, broken, backwards = float("-inf"), 0, False, 0
        packets = iter(self._container.demux(self._stream))
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                yield Damage(max(last, 0.0), "damaged", _said(error))
                return
            if packet is None:
                break
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                frames, damages = [], damages + 1
                if not broken:
                    yield Damage(max(last, 0.0), "damaged", _said(error))
                if damages == _DAMAGES:
                    return
                broken = True
            for frame in frames:
                time = last + 1 / rate if frame.pts is None else frame.pts * base
                if time <= last:
                    backwards += 1
                    if backwards == _BACKWARDS:
                        yield Damage(last, "damaged", "times run backwards: what is shown again then is left out")
                    continue
                if broken and not frame.key_frame:
                    continue
                if frame.is_corrupt:
                    damages, broken = damages + 1, True
                    yield Damage(max(last, 0.0), "damaged", "a picture with errors in its data")
                    if damages == _DAMAGES:
                        return
                    continue
                broken, last = False, time
                yield Picture(frame, time, frame.rotation // 90 % 4)
        begin = float((self._stream.start_time or 0) * base)
        if last + 1 / rate < begin + self.seconds - max(0.5, 0.02 * self.seconds):
            reached = max(last + 1 / rate - begin, 0.0)
            yield Damage(max(last, 0.0), "truncated", f"ends at {reached:.2f} s of {self.seconds:.2f} s")


def _source(item: Item) -> Any:
    """What FFmpeg opens: a path, or the bytes of a shard's member and of files whose names are no text."""
    if item.offset is not None:
        with item.path.open("rb") as file:
            file.seek(item.offset)
            return io.BytesIO(file.read(item.size))
    try:
        str(item.path).encode()
    except UnicodeEncodeError:
        return item.path.open("rb")
    return str(item.path)


def _said(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0][:200]
