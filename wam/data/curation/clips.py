"""One raw video to clips: decoded once, cut at shots, looked at, encoded. Pure functions of the file and the settings.

What comes after a clip's end does not depend on what came before it, so work that stopped after a clip goes on there and
gives what it would have given.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from wam.data.curation import signals
from wam.data.curation.config import CurateConfig
from wam.data.curation.probe import Damage, Picture, RawVideo, RefusedError
from wam.data.curation.records import Clip, Event, Finished, Item, Opened, Reason, Rejection, Unit
from wam.data.curation.shots import ShotFinder
from wam.data.curation.transcode import Framer, encode, to_rgb
from wam.data.statistics import FeatureStatistics

_EARLY = 0.004  # seconds that a frame may come after its time, as times rounded to milliseconds do
_FRESH = 0.8  # least share of a clip's frames that are not repeats
_STATISTICS_FRAMES = 8


@dataclass
class Piece:
    """A stretch of one shot at the clip's rate and size. pictures: (3H/2, W) each. fresh: source frames among them."""

    start: float
    end: float = 0.0
    pictures: list[np.ndarray] = field(default_factory=list)
    fresh: int = 0


def curate_item(unit: Unit, config: CurateConfig) -> Iterator[Event]:
    """Everything that comes of a video: `Opened`, then clips and rejections in the order of time, then `Finished`.

    A file that cannot be used is a rejection, not an exception. OSError while reading means the disk and is raised.
    """
    item = unit.item
    try:
        with RawVideo(item) as video:
            yield Opened(item=item.id, seconds=video.seconds)
            if 0 < min(video.height, video.width) < config.min_side:
                small = f"{video.width}x{video.height} pixels, less than {config.min_side} on one side"
                yield _rejection(item, "small", small)
            else:
                for one in pieces(video, config, unit.start):
                    if isinstance(one, Piece):
                        yield to_clip(one, video, config)
                    else:
                        yield _rejection(item, one.reason, one.detail, start=one.time)
    except RefusedError as refusal:
        yield _rejection(item, refusal.reason, refusal.detail)
    yield Finished(item=item.id, source=item.name)


def pieces(video: RawVideo, config: CurateConfig, start: float | None = None) -> Iterator[Piece | Damage]:
    """Cut a video at its shots, at gaps and at the greatest length; damage is passed on after the piece before it."""
    cutter = _Cutter(video, config)
    for number, one in enumerate(video.pictures(start)):
        if isinstance(one, Damage):
            yield from cutter.flush()
            yield one
        else:
            yield from cutter.push(number, one)
    yield from cutter.flush()


class _Cutter:
    """Pictures wait in a queue until the shot finder can no longer call them the first of a new shot."""

    def __init__(self, video: RawVideo, config: CurateConfig) -> None:
        self.config, self.interval = config, 1 / (video.fps or config.fps)
        self.longest = round(config.max_seconds * config.fps)
        self.framer = Framer(config.size, aspect=video.aspect)
        self.finder = ShotFinder(config.detector, config.threshold)
        self.queue: deque[tuple[int, Picture, np.ndarray | None]] = deque()
        self.piece: Piece | None = None
        self.held: Picture | None = None
        self.cropped: np.ndarray | None = None

    def push(self, number: int, picture: Picture) -> Iterator[Piece]:
        small = None if self.finder.kind == "none" else self.framer.small(picture)
        if small is not None and self.queue and (last := self.queue[-1][2]) is not None and last.shape != small.shape:
            yield from self.flush()  # the picture has another shape from here on
        self.queue.append((number, picture, small))
        cut = None if small is None else self.finder.push(number, small)
        if cut is not None:
            while self.queue and self.queue[0][0] < cut:
                yield from self._settle()
            yield from self._close(self.queue[0][1].time)
            self._look_again()
        elif len(self.queue) > self.finder.delay:
            yield from self._settle()

    def flush(self) -> Iterator[Piece]:
        """No picture follows without a break."""
        while self.queue:
            yield from self._settle()
        yield from self._close(None)
        self.finder.restart()

    def _settle(self) -> Iterator[Piece]:
        """The oldest picture of the queue belongs to the current piece, or begins one."""
        _, picture, _ = self.queue[0]
        if self.piece is not None and self.held is not None:
            gap = picture.time - self.held.time > self.config.max_gap
            if not gap:
                self._fill(self.piece, self.held, until=picture.time)
            full = picture.time >= self.piece.start + self.longest / self.config.fps - _EARLY
            if gap or full:
                yield from self._close(None if gap else picture.time)
                self._look_again()
        if self.piece is None:
            self.piece = Piece(start=picture.time)
        self.held, self.cropped = picture, None
        self.queue.popleft()

    def _close(self, end: float | None) -> Iterator[Piece]:
        """End the piece where the next begins, or a frame's length after its last picture."""
        piece, held = self.piece, self.held
        self.piece = self.held = self.cropped = None
        if piece is not None and held is not None:
            piece.end = held.time + self.interval if end is None else end
            self._fill(piece, held, until=piece.end)
            if piece.pictures:
                yield piece

    def _fill(self, piece: Piece, held: Picture, *, until: float) -> None:
        """The held picture is shown until the next one comes: take it for every time of the clip in between."""
        while len(piece.pictures) < self.longest:
            if piece.start + len(piece.pictures) / self.config.fps >= until - _EARLY:
                return
            if self.cropped is None:
                self.cropped = self.framer.crop(held)
                piece.fresh += 1
            piece.pictures.append(self.cropped)

    def _look_again(self) -> None:
        """A clip begins with the oldest picture of the queue: the finder is to know nothing else."""
        self.finder.restart()
        for number, _, small in self.queue:
            if small is not None:
                self.finder.push(number, small)


def to_clip(piece: Piece, video: RawVideo, config: CurateConfig) -> Clip | Rejection:
    """Look at a piece; encode it if nothing speaks against it."""
    item, count = video.item, len(piece.pictures)
    name = f"{item.id}-{max(0, round(piece.start * 1000)):08d}"

    def reject(reason: Reason, detail: str) -> Rejection:
        return _rejection(item, reason, detail, start=piece.start, end=piece.end, clip=name)

    seconds = count / config.fps
    if seconds < config.min_seconds:
        return reject("short", f"{seconds:.2f} s, less than {config.min_seconds:g} s")
    if not config.slow_sources and piece.fresh < _FRESH * count:
        return reject("slow", f"{piece.fresh / seconds:.1f} frames a second, less than {config.fps:g}")
    luma = np.stack([picture[: config.size[0]] for picture in piece.pictures])
    small = signals.thumbnails(luma)
    share, moving = signals.motion(small)
    if share < config.min_motion or moving < config.min_moving:
        return reject("still", f"{share:.2%} of the pixels change, {moving:.0%} of the frames move")
    blur = signals.blur(luma)
    if blur > config.max_blur:
        return reject("blurred", f"blur {blur:.2f}, more than {config.max_blur:g}")
    encoded = encode(piece.pictures, fps=config.fps, encoding=config.encoding)
    rows = np.unique(np.linspace(0, count - 1, _STATISTICS_FRAMES).round().astype(int))
    colours = np.stack([to_rgb(piece.pictures[row]) for row in rows])
    return Clip(
        id=name,
        item=item.id,
        source=item.name,
        sha256=hashlib.sha256(encoded).hexdigest(),
        start=piece.start,
        end=piece.end,
        fps=config.fps,
        height=config.size[0],
        width=config.size[1],
        frames=count,
        file_bytes=len(encoded),
        source_fps=video.fps,
        source_height=video.height,
        source_width=video.width,
        motion=share,
        moving=moving,
        blur=blur,
        hash=signals.perceptual_hash(small).astype(">u8").tobytes().hex(),
        motion_map=signals.motion_map(small).tobytes().hex(),
        licence=item.licence or config.licence,
        caption=item.caption,
        statistics=FeatureStatistics.of_images(colours).to_json(),
        video=encoded,
    )


def _rejection(
    item: Item, reason: Reason, detail: str, *, start: float | None = None, end: float | None = None, clip: str = ""
) -> Rejection:
    return Rejection(item=item.id, source=item.name, reason=reason, detail=detail, start=start, end=end, clip=clip)
