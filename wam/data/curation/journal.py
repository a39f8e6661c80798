"""The record of a curation under way: a line for every clip, rejection and finished source, so that it can go on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from pathlib import Path

from wam.contracts import WamError, expected
from wam.data.curation.records import (
    Caption,
    Clip,
    Embedding,
    Event,
    Finished,
    Item,
    Opened,
    Rejection,
    Unit,
    from_plain,
    to_plain,
)
from wam.files import disk_error, write_bytes

_SYNC = 1.0  # seconds between flushes to the disk itself; a killed process loses nothing, a power cut this much


class Journal:
    """What is known of a curation, in memory and in `folder`: the journal, and the clips' files until they are packed.

    A line that was being written when the process died is dropped. A clip whose file is gone is forgotten with all that
    is known of its source, which is then taken anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "journal.jsonl"
        self.clips: dict[str, Clip] = {}
        self.rejections: dict[tuple[str, str, float | None], Rejection] = {}
        self.finished: set[str] = set()
        self.captions: dict[str, str] = {}
        self.embeddings: dict[str, tuple[float, ...]] = {}
        self.seconds: dict[str, float] = {}
        self._reached: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._good = self._load()
        self._file = self._append()
        self._file.truncate(self._good)
        self._synced = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(*(() if kind is None else (WamError,))):  # a first error says more than a second
            self.close()

    def add(self, event: Event) -> None:
        """Put an event on record. Raises WamError if the disk is full; what was recorded before stays."""
        line = json.dumps(to_plain(event), ensure_ascii=True).encode() + b"\n"
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            if time.monotonic() - self._synced > _SYNC:
                self._sync()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._good)
            raise disk_error(self.path, error) from error
        self._good += len(line)
        self._take(event)

    def close(self) -> None:
        if not self._file.closed:
            try:
                self._sync()
            except OSError as error:
                raise disk_error(self.path, error) from error
            finally:
                self._file.close()

    def clip_path(self, clip: str) -> Path:
        return clip_path(self.folder, clip)

    def unit(self, item: Item) -> Unit | None:
        """What is still to do of an item, if anything."""
        return None if item.id in self.finished else Unit(item=item, start=self._reached.get(item.id))

    def forget_lost(self) -> None:
        """Take back what rests on clip files that are not there or not whole."""
        lost = {clip.item for clip in self.clips.values() if _size(self.clip_path(clip.id)) != clip.file_bytes}
        if not lost:
            return
        for known in (self.finished, self._reached, self.seconds):
            for item in lost & set(known):
                known.discard(item) if isinstance(known, set) else known.pop(item)
        self.clips = {name: clip for name, clip in self.clips.items() if clip.item not in lost}
        self.rejections = {key: one for key, one in self.rejections.items() if one.item not in lost}
        self.rewrite()

    def rewrite(self) -> None:
        """Write what is known as a new journal, whole or not at all."""
        self._file.close()
        opened = [Opened(item=item, seconds=seconds) for item, seconds in self.seconds.items()]
        embedded = [Embedding(clip=c, values=v) for c, v in self.embeddings.items() if c in self.clips]
        said = [Caption(clip=c, text=t) for c, t in self.captions.items() if c in self.clips]
        done = [Finished(item=item, source="") for item in sorted(self.finished)]
        events: list[Event] = [*opened, *self.clips.values(), *self.rejections.values(), *embedded, *said, *done]
        lines = b"".join(json.dumps(to_plain(event)).encode() + b"\n" for event in events)
        write_bytes(self.path, lines)
        self._good = len(lines)
        self._file = self._append()

    def _take(self, event: Event) -> None:
        match event:
            case Clip():
                self.clips[event.id] = event.without_video()
                self._reached[event.item] = max(event.end, self._reached.get(event.item, event.end))
            case Rejection():
                self.rejections.setdefault((event.item, event.reason, event.start), event)
                if event.end is not None:
                    self._reached[event.item] = max(event.end, self._reached.get(event.item, event.end))
            case Finished():
                self.finished.add(event.item)
            case Opened():
                self.seconds[event.item] = event.seconds
            case Caption():
                self.captions[event.clip] = event.text
            case Embedding():
                self.embeddings[event.clip] = tuple(event.values)

    def _load(self) -> int:
        """Read the journal; returns how many of its bytes are whole lines."""
        if not self.path.is_file():
            return 0
        good = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take(from_plain(json.loads(line)))
                except (ValueError, KeyError, TypeError) as error:
                    raise expected(
                        f"a record in line {number} of {self.path}", got=f"{type(error).__name__}: {error}",
                        do="restore the file from a copy, or curate into another folder",
                    ) from error  # fmt: skip
                good += len(line)
        return good

    def _append(self) -> io.FileIO:
        return self.path.open("ab", buffering=0)  # nothing waits in a buffer that a killed process would lose

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def clip_path(folder: Path, clip: str) -> Path:
    """Where a clip's file waits to be packed; two hundred folders, so that none grows large."""
    return folder / "clips" / clip[:2] / f"{clip}.mp4"


def store_clip(folder: Path, clip: Clip) -> Clip:
    """Put a clip's bytes on the disk, whole or not at all; returns it without them."""
    write_bytes(clip_path(folder, clip.id), clip.video)
    return clip.without_video()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
