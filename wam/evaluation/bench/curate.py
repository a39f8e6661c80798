"""What curation costs: raw video per core-second, reading against the bare decoder, and many clips against few."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from wam.contracts import expected
from wam.data.curation.config import CurateConfig
from wam.data.curation.pipeline import curate
from wam.data.curation.probe import Picture, RawVideo, RefusedError
from wam.data.curation.records import Clip, Event, Finished, Item, Unit
from wam.data.curation.sources import find_items
from wam.data.curation.transcode import Framer, encode
from wam.data.curation.workers import Stage, single_threaded, work
from wam.data.video import VideoEncoding, encode_video
from wam.evaluation.bench.timing import BenchResult, Target, time_in_turns

RECORDINGS = Path("../shared/data/human_video")
"""Real video of 256 pixels, beside the checkout; where it is not there, moving patterns are made."""


def bench_curate(
    *,
    videos: str | Path | None = None,
    config: CurateConfig | None = None,
    seconds: float = 200.0,
    repeats: int = 3,
    few: int = 100,
    many: int = 10_000,
) -> BenchResult:
    """Core-seconds are processor time of this process, which works alone and on one thread, so other programs on the
    machine count little; what the clock said is in the detail.

    realtime_per_core: seconds of raw video that one core-second turns into a finished dataset: reading, shots, signals,
    encoding, duplicates and packing; the median of `repeats`. Nothing is filtered, so every second is encoded.
    decode_efficiency: processor time of the decoder alone (PyAV, one thread) over that of curation's reading of the same
    files, each frame once, with its time, orientation and damage checked. Making the small pictures that the shot
    finder looks at is the next stage; `with_small_pictures` in the detail counts it too.
    cost_growth: processor time for each of `many` clips over that for each of `few`, of everything that could grow:
    finding sources, writing clips and records, an interruption half-way and the return from it, duplicates, tables and
    packing. The clips are tiny and their signals are made up, a tenth of them repeating others; decoding and encoding,
    which see one clip at a time, are left out. `over_1000` in the detail leaves fixed costs out of the comparison.

    videos: a folder of video; about `seconds` of it are used, spread over its files.
    """
    single_threaded()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        given = Path(videos) if videos is not None else RECORDINGS
        real = videos is not None or given.is_dir()
        if not real:
            files, long = max(1, round(seconds / 10)), min(10, round(seconds))
            given = write_patterns(folder / "patterns", files=files, seconds=long)
        items, length = _share(find_items([given]).items, seconds)
        every = replace(config or CurateConfig(), min_motion=0.0, min_moving=0.0, max_blur=1.0, duplicates="mark")
        speed = [_whole_run(items, every, folder / f"run-{repeat}") for repeat in range(repeats)]
        reading = _reading(items, repeats=repeats)
        counts = sorted({few, min(1000, many), many})
        costs = {count: _record_cost(count, folder / f"records-{count}") for count in counts}
    return BenchResult(
        name="curate",
        figures={
            "realtime_per_core": statistics.median(length / used for used, _ in speed),
            "decode_efficiency": reading["efficiency"],
            "cost_growth": costs[many] / costs[few],
        },
        detail={
            "videos": "recordings" if real else "patterns",
            "files": len(items),
            "seconds": length,
            "clip_fps": every.fps,
            "clip_size": list(every.size),
            "realtime_by_the_clock": statistics.median(length / wall for _, wall in speed),
            "decoder_frames_per_second": reading["frames_per_second"],
            "with_small_pictures": reading["with_small_pictures"],
            "milliseconds_per_record": {str(count): 1e3 * cost for count, cost in costs.items()},
            "over_1000": costs[many] / costs[min(1000, many)],
        },
        n=repeats,
        targets={
            "realtime_per_core": Target(value=20.0),
            "decode_efficiency": Target(value=0.8),
            "cost_growth": Target(value=1.1, at_least=False),
        },
    )


def write_patterns(root: Path, *, files: int = 8, seconds: int = 10, size: tuple[int, int] = (256, 384)) -> Path:
    """Videos of drifting waves at 30 frames a second, with a soft grain, as a stand-in for recordings."""
    root.mkdir(parents=True)
    y, x = np.mgrid[: size[0], : size[1]] / size[0]
    for number in range(files):
        rng = np.random.default_rng(number)
        grain = rng.normal(0, 6, (*size, 3))
        phase, pace = rng.uniform(0, 6, 3), rng.uniform(0.05, 0.2, 3)
        times = np.arange(30 * seconds)[:, None, None, None]
        waves = (np.sin(9 * x[..., None] + phase + pace * t) * np.cos(7 * y[..., None] - pace * t) for t in times)
        frames = ((127 + 100 * wave[0] + grain).clip(0, 255).astype(np.uint8) for wave in waves)
        encoding = VideoEncoding(gop=60, crf=25)
        (root / f"{number}.mp4").write_bytes(encode_video(frames, fps=30, encoding=encoding))
    return root


def _share(items: Sequence[Item], seconds: float) -> tuple[list[Item], float]:
    """Readable items spread over the list, until they are so long together."""
    order = np.random.default_rng(0).permutation(len(items))
    chosen, total = [], 0.0
    for place in order:
        if total >= seconds:
            break
        try:
            with RawVideo(items[place]) as video:
                length = video.seconds
        except RefusedError:
            continue
        if length > 0:
            chosen.append(items[place])
            total += length
    if not chosen:
        raise expected("a readable video", got=f"none of {len(items)}", do="name another folder")
    return chosen, total


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the processor and of the clock."""
    gc.collect()
    used, begun = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - used, time.perf_counter() - begun


def _whole_run(items: Sequence[Item], config: CurateConfig, root: Path) -> tuple[float, float]:
    return _timed(lambda: curate([item.path for item in items], root, config, executor=_here))


def _here(units: Iterable[Unit], config: CurateConfig, folder: Path, stage: Stage) -> Iterator[Event]:
    for unit in units:
        yield from work(unit, config, folder, stage)


def _reading(items: Sequence[Item], *, repeats: int) -> dict[str, float]:
    def decoder() -> int:
        count = 0
        for item in items:
            with av.open(str(item.path)) as container:
                container.streams.video[0].codec_context.thread_count = 1
                count += sum(1 for _ in container.decode(video=0))
        return count

    def read(small: bool) -> int:
        count = 0
        for item in items:
            with RawVideo(item) as video:
                framer = Framer((256, 256), aspect=video.aspect)
                for picture in video.pictures():
                    count += 1
                    if small and isinstance(picture, Picture):
                        framer.small(picture)
        return count

    frames = decoder()
    if (found := read(False)) != frames:
        raise RuntimeError(f"curation reads {found} frames where the decoder gives {frames}")
    timings = time_in_turns(
        {"decoder": decoder, "curation": lambda: read(False), "pictures": lambda: read(True)}, repeats=repeats, warmup=0
    )
    return {
        "efficiency": 1 / timings.compare("curation", "decoder")["cpu_ratio"],
        "with_small_pictures": 1 / timings.compare("pictures", "decoder")["cpu_ratio"],
        "frames_per_second": frames / statistics.median(timings.cpu["decoder"]),
    }


def _record_cost(count: int, root: Path) -> float:
    """Core-seconds for each of `count` clips, all that is not decoding and encoding."""
    raw = root / "raw"
    raw.mkdir(parents=True)
    for number in range(count):
        (raw / f"{number:05d}.mp4").write_bytes(b"-")
    config = CurateConfig(size=(32, 32), duplicates="mark")
    picture = np.full((48, 32), 128, np.uint8)
    made = _MadeUp(encode([picture] * 5, fps=config.fps, encoding=config.encoding), count, stop=count // 2)
    rounds = 5 if count <= 100 else 1
    spent = []
    for number in range(rounds):
        made.left = count // 2
        output = root / f"clips-{number}"

        def both(output: Path = output) -> None:
            try:
                curate([raw], output, config, executor=_here, stage=made)
            except _InterruptedError:
                made.left = count
            curate([raw], output, config, executor=_here, stage=made)

        spent.append(_timed(both)[0] / count)
    return statistics.median(spent)


class _InterruptedError(BaseException):
    """The interruption half-way."""


class _MadeUp:
    """A stage that decodes nothing: a tiny clip for each source, with signals drawn for it."""

    def __init__(self, video: bytes, count: int, *, stop: int) -> None:
        self.left = stop
        self.video = video
        rng = np.random.default_rng(0)
        self.hashes = rng.integers(0, 2**63, (count, 4)).astype(">u8")
        repeats = rng.permutation(count)[: count // 10]
        self.hashes[repeats] = self.hashes[repeats - 1]
        self.maps = rng.integers(0, 256, (count, 512)).astype(np.uint8)
        self.maps[repeats] = self.maps[repeats - 1]

    def __call__(self, unit: Unit, config: CurateConfig) -> Iterator[Event]:
        if self.left <= 0:
            raise _InterruptedError
        self.left -= 1
        number = int(unit.item.path.stem)
        level = {name: [[[0.5]]] * 3 for name in ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")}
        yield Clip(
            id=f"{unit.item.id}-00000000",
            item=unit.item.id,
            source=unit.item.name,
            sha256="0" * 64,
            start=0.0,
            end=0.5,
            fps=config.fps,
            height=32,
            width=32,
            frames=5,
            file_bytes=len(self.video),
            source_fps=30.0,
            source_height=256,
            source_width=256,
            motion=0.1,
            moving=1.0,
            blur=0.3,
            hash=self.hashes[number].tobytes().hex(),
            motion_map=self.maps[number].tobytes().hex(),
            licence="",
            caption="",
            statistics={**level, "count": [5]},
            video=self.video,
        )
        yield Finished(item=unit.item.id, source=unit.item.name)
