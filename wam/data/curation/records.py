"""What passes between the stages: items of raw video, clips, and what was left out and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Reason = Literal[
    "empty", "unreadable", "no video", "damaged", "truncated", "crashed", "stuck", "failed",
    "small", "slow", "short", "still", "blurred", "duplicate",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Item:
    """One raw video. id: of its name, the same on every machine. name: below the folder that was given, for people.

    path: the file, or the tar shard in which it takes `size` bytes from `offset` on.
    """

    id: str
    name: str
    path: Path
    size: int
    offset: int | None = None
    licence: str = ""
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A piece of work: an item from `start` (seconds) on, or all of it."""

    item: Item
    start: float | None = None


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An item's container was read. seconds: its length as the header has it, 0 where it says nothing."""

    item: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Something left out: the item from start to end (seconds; None for all or the rest of it)."""

    item: str
    source: str
    reason: Reason
    detail: str
    start: float | None = None
    end: float | None = None
    clip: str = ""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip that passed the filters. Times in seconds of the source, sizes in pixels and bytes.

    motion, moving, blur: see `signals.py`. hash: perceptual, of four frames, hexadecimal. motion_map: where and when
    something moves, hexadecimal. statistics: of its pixels, as LeRobot keeps them. video: the file's bytes, held only
    until they are on the disk.
    """

    id: str
    item: str
    source: str
    sha256: str
    start: float
    end: float
    fps: float
    height: int
    width: int
    frames: int
    file_bytes: int
    source_fps: float
    source_height: int
    source_width: int
    motion: float
    moving: float
    blur: float
    hash: str
    motion_map: str
    licence: str
    caption: str
    statistics: Mapping[str, Any] = field(repr=False)
    video: bytes = field(default=b"", repr=False, compare=False)

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def without_video(self) -> Clip:
        return dataclasses.replace(self, video=b"")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """Nothing more will come of an item. core_seconds: processor time that was spent on it, where it is known."""

    item: str
    source: str
    core_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What a hook says of a clip."""

    clip: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """What a hook makes of a clip: numbers whose cosine says how alike two clips are."""

    clip: str
    values: tuple[float, ...] = field(repr=False)


Event = Opened | Clip | Rejection | Finished | Caption | Embedding
_KINDS: dict[str, type] = {
    "opened": Opened, "clip": Clip, "rejection": Rejection, "finished": Finished, "caption": Caption,
    "embedding": Embedding,
}  # fmt: skip


def to_plain(event: Event) -> dict[str, Any]:
    """What JSON holds, with the kind; a clip's bytes are left out."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(event, cls))
    values = {f.name: getattr(event, f.name) for f in dataclasses.fields(event) if f.name != "video"}
    return {"kind": kind, **values}


def from_plain(values: Mapping[str, Any]) -> Event:
    """The inverse of `to_plain`. Raises KeyError or TypeError on anything else."""
    rest = dict(values)
    return _KINDS[rest.pop("kind")](**rest)
