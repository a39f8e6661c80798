"""Raw videos as people have them: of any rate and shape, turned, torn and empty."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
from av.video.reformatter import VideoReformatter

from wam.data.curation.clips import curate_item
from wam.data.curation.config import CurateConfig
from wam.data.curation.pipeline import Curated, curate
from wam.data.curation.records import Clip, Event, Item, Rejection, Unit
from wam.data.curation.sources import item_id
from wam.data.curation.workers import Stage, work
from wam.data.video import read_frames

SMALL = CurateConfig(size=(64, 64), min_seconds=0.5, max_seconds=2.0, min_side=32, processes=1)
SMALL_WORDS = ("size=[64,64]", "min_seconds=0.5", "max_seconds=2", "min_side=32", "processes=1")


def scene(count: int, *, seed: int = 0, height: int = 96, width: int = 128, moves: bool = True) -> np.ndarray:
    """(T, H, W, 3) uint8: blocks of many colours, over which a large bright block wanders; every seed another scene."""
    rng = np.random.default_rng(seed)
    ground = np.kron(rng.integers(30, 200, (height // 8, width // 8, 3)), np.ones((8, 8, 1)))
    frames = np.repeat(ground[None].astype(np.uint8), count, 0)
    side, phase, speed = height // 3, rng.uniform(0, 6, 2), rng.uniform(0.15, 0.25, 2)
    for number, frame in enumerate(frames if moves else ()):
        y, x = ((0.5 + 0.45 * np.sin(phase + speed * number)) * (height - side, width - side)).astype(int)
        frame[y : y + side, x : x + side] = 240 - ground[y : y + side, x : x + side] // 3
    return frames


def write(
    path: Path,
    frames: np.ndarray,
    *,
    fps: float = 20,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixel: Fraction | None = None,
    container: str = "mp4",
    start: int = 0,
) -> Path:
    """A video file with a key frame every ten frames. times: seconds, in milliseconds' steps, in place of a rate. start:
    number of the first frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    muxing = {"movflags": "faststart"} if container == "mp4" else {}
    with path.open("wb") as file, av.open(file, "w", format=container, options=muxing) as target:
        stream: Any = target.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})
        stream.options = {"g": "10", "crf": "18", "preset": "veryfast", **(options or {})}
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.thread_count = 1
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        converter = VideoReformatter()
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = converter.reformat(frame, format="yuv420p", threads=1)
            frame.pts = start + number if times is None else round(times[number] * 1000)
            frame.time_base = Fraction(1, 1000) if times is not None else 1 / Fraction(fps).limit_denominator(1001)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and no pictures."""
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(path: Path, degrees: int) -> Path:
    """Note in the track's header that players are to turn the pictures clockwise, as phones do."""
    one, data = 1 << 16, bytearray(path.read_bytes())
    cosine, sine = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    start = data.index(b"tkhd") + 4
    at = start + (52 if data[start] == 1 else 40)
    data[at : at + 36] = struct.pack(">9i", cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def item(path: Path, name: str | None = None) -> Item:
    name = name or path.name
    return Item(id=item_id(name), name=name, path=path.resolve(), size=path.stat().st_size)


def outcome(path: Path, config: CurateConfig = SMALL, **changes: Any) -> tuple[list[Clip], list[Rejection]]:
    """The clips and rejections of one file."""
    events = list(curate_item(Unit(item=item(path)), replace(config, **changes)))
    return [e for e in events if isinstance(e, Clip)], [e for e in events if isinstance(e, Rejection)]


def frames_of(clip: Clip, folder: Path) -> np.ndarray:
    """The clip's pictures, read back from its bytes."""
    path = folder / f"{clip.id}.mp4"
    path.write_bytes(clip.video)
    return read_frames(path, backend="pyav")


def here(units: Iterable[Unit], config: CurateConfig, folder: Path, stage: Stage) -> Iterator[Event]:
    """An executor without processes."""
    for unit in units:
        yield from work(unit, config, folder, stage)


def deadly(unit: Unit, config: CurateConfig) -> Iterator[Event]:
    """A stage whose decoder ends the process: by a wild pointer on opening `opening`, by giving up in the third second of
    `killer`; it hangs there in `sleeper`."""
    name = unit.item.name
    if "opening" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    for event in curate_item(unit, config):
        if "killer" in name and isinstance(event, Clip) and event.start <= 2.5 < event.end:
            os._exit(139)
        if "sleeper" in name and isinstance(event, Clip) and event.start <= 2.5 < event.end:
            time.sleep(60)
        yield event


def full_disk(unit: Unit, config: CurateConfig) -> Iterator[Event]:
    """A stage in a process whose disk is full from the second source on."""
    import errno

    def fsync(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if "second" in unit.item.name:
        os.fsync = fsync
    yield from curate_item(unit, config)


def slow(unit: Unit, config: CurateConfig) -> Iterator[Event]:
    """The usual stage, with a pause before each event, so that there is time to interrupt it."""
    for event in curate_item(unit, config):
        time.sleep(0.1)
        yield event


def run(videos: Path, root: Path, config: CurateConfig = SMALL, **options) -> Curated:
    return curate([videos], root, config, **{"executor": here, **options})


def manifest(root: Path) -> list[dict]:
    return pq.read_table(root / "manifest.parquet").to_pylist()


def rejected(root: Path) -> list[dict]:
    return pq.read_table(root / "rejected.parquet").to_pylist()


def content(root: Path) -> dict[str, str]:
    """What the folder holds, by file, its own bookkeeping apart."""
    files = [path for path in root.rglob("*") if path.is_file() and ".curation" not in path.parts]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}
