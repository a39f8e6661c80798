"""`curate`: from raw video to a dataset, resumable at the clip; who runs the stages is an argument."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import expected
from wam.data.atomic import hold
from wam.data.curation.clips import curate_item
from wam.data.curation.config import CurateConfig
from wam.data.curation.dataset import write_dataset
from wam.data.curation.duplicates import find_leaders, hash_array, map_array
from wam.data.curation.journal import Journal
from wam.data.curation.manifest import manifest_row, write_manifest, write_rejected
from wam.data.curation.records import Caption, Clip, Embedding, Event, Rejection, Unit
from wam.data.curation.shards import write_shards
from wam.data.curation.sources import Found, find_items
from wam.data.curation.workers import Stage, WorkerPool
from wam.data.features import INFO_PATH, DatasetInfo
from wam.data.video import read_frames
from wam.files import write_json

SCRATCH = ".curation"
Frames = Callable[[np.ndarray], Any]
Executor = Callable[[Sequence[Unit], CurateConfig, Path, Stage], Iterable[Event]]
_HOOK_FRAMES = 8


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Models from outside. Both are given (T, H, W, 3) uint8 frames spread over a clip.

    caption: -> a sentence; of clips that have none and are kept. embed: -> (D,) numbers whose cosine is likeness.
    """

    caption: Callable[[np.ndarray], str] | None = None
    embed: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True, kw_only=True)
class Curated:
    """What lies in `root`: episodes of so many seconds in all, from so many clips that passed the filters.

    raw_seconds: of the sources, as their headers say. rejected: pieces and files by reason, near-duplicates included.
    new: clips made by this call, in `spent` seconds.
    """

    root: Path
    episodes: int
    seconds: float
    raw_seconds: float
    clips: int
    rejected: dict[str, int]
    new: int
    spent: float


def curate(
    roots: Sequence[Path | str],
    output: Path | str,
    config: CurateConfig | None = None,
    *,
    hooks: Hooks | None = None,
    executor: Executor | None = None,
    stage: Stage = curate_item,
    progress: Callable[[int, int, str], None] | None = None,
) -> Curated:
    """Turn raw video into a LeRobot v3.0 folder without actions, `manifest.parquet` and `rejected.parquet`.

    Call it again with the same settings after an interruption, whatever it was: finished clips are kept. executor: runs
    the units (default: processes of this machine). progress: called with (sources done, sources in all, a note).

    Raises WamError for other settings or sources than the folder was begun with, a folder of something else, a second
    run in the same folder, a full disk, and where no clip is left.
    """
    begun, root, config, hooks = time.monotonic(), Path(output), config or CurateConfig(), hooks or Hooks()
    found = find_items(roots, exclude=root)
    _check_folder(root)
    root.mkdir(parents=True, exist_ok=True)
    lock = hold(root)
    try:
        _check_settings(root, config)
        with Journal(root / SCRATCH) as journal:
            if (root / INFO_PATH).is_file():
                _check_sources(root, journal, found)
                new = 0
            else:
                journal.forget_lost()
                new = _make_clips(journal, found, config, executor or local_processes, stage, progress)
                _write(root, journal, found, config, hooks, progress)
            shutil.rmtree(journal.folder / "clips", ignore_errors=True)
            return _outcome(root, journal, new=new, spent=time.monotonic() - begun)
    finally:
        lock.close()


def local_processes(units: Sequence[Unit], config: CurateConfig, folder: Path, stage: Stage) -> Iterator[Event]:
    """The default executor: `processes` workers here."""
    count = min(config.processes or os.cpu_count() or 1, len(units))
    with WorkerPool(config, folder, processes=count, stage=stage) as pool:
        yield from pool.run(units)


def _make_clips(
    journal: Journal,
    found: Found,
    config: CurateConfig,
    executor: Executor,
    stage: Stage,
    progress: Callable[[int, int, str], None] | None,
) -> int:
    """Run what is still to do; returns how many clips came of it."""
    for rejection in found.rejections:
        if (rejection.item, rejection.reason, rejection.start) not in journal.rejections:
            journal.add(rejection)
    units = [unit for item in found.items if (unit := journal.unit(item)) is not None]
    before, rejected = len(journal.clips), 0
    if progress is not None:
        progress(len(journal.finished), len(found.items), "")
    if not units:
        return 0
    for event in executor(units, config, journal.folder, stage):
        journal.add(event)
        rejected += isinstance(event, Rejection)
        if progress is not None:
            note = f"{len(journal.clips)} clips, {rejected} pieces left out"
            progress(min(len(journal.finished), len(found.items)), len(found.items), note)
    return len(journal.clips) - before


def _write(
    root: Path,
    journal: Journal,
    found: Found,
    config: CurateConfig,
    hooks: Hooks,
    progress: Callable[[int, int, str], None] | None,
) -> None:
    """Clips on record -> duplicates, captions, tables and the dataset."""
    place = {item.id: number for number, item in enumerate(found.items)}
    # clips of sources that are gone by now stay, behind the others
    clips = sorted(journal.clips.values(), key=lambda c: (place.get(c.item, len(place)), c.source, c.start))
    if hooks.embed is not None:
        for clip in _shown(clips, journal.embeddings, "embedded", progress):
            values = np.asarray(hooks.embed(_frames(journal, clip)), np.float32).reshape(-1)
            journal.add(Embedding(clip=clip.id, values=tuple(values.tolist())))
    leaders = _leaders(clips, journal, config, use_embeddings=hooks.embed is not None)
    repeats = [clip for clip, leader in zip(clips, leaders, strict=True) if leader != clip.id]
    dropped = {clip.id for clip in repeats} if config.duplicates == "drop" else set()
    kept = [clip for clip in clips if clip.id not in dropped]
    if hooks.caption is not None:
        for clip in _shown([c for c in kept if not c.caption], journal.captions, "captioned", progress):
            journal.add(Caption(clip=clip.id, text=str(hooks.caption(_frames(journal, clip))).strip()))
    captions = {clip.id: clip.caption or journal.captions.get(clip.id, "") for clip in clips}
    episode = {clip.id: number for number, clip in enumerate(kept)}
    rows = [
        manifest_row(clip, leader=leader, episode=episode.get(clip.id), caption=captions[clip.id])
        for clip, leader in zip(clips, leaders, strict=True)
    ]
    leader_of = {clip.id: leader for clip, leader in zip(clips, leaders, strict=True)}
    duplicates = [_duplicate(clip, leader_of[clip.id]) for clip in clips if clip.id in dropped]
    write_rejected(root, [*journal.rejections.values(), *duplicates])
    if not kept:
        reasons = Counter(one.reason for one in journal.rejections.values())
        raise expected(
            "at least one clip that passes the filters",
            got="none: " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()),
            do="see rejected.parquet, and relax the settings or give other videos (into another folder)",
        )
    if config.shard_megabytes:
        shutil.rmtree(root / "shards", ignore_errors=True)
        shown = [row for row in rows if row["episode"] is not None]
        write_shards(root / "shards", shown, journal.clip_path, megabytes=config.shard_megabytes)
    write_dataset(
        root,
        config,
        kept,
        [captions[clip.id] for clip in kept],
        journal.clip_path,
        before_last=lambda: write_manifest(root, rows),
    )


def _leaders(clips: Sequence[Clip], journal: Journal, config: CurateConfig, *, use_embeddings: bool) -> list[str]:
    """The id of the clip that each one repeats, or its own."""
    if config.duplicates == "off" or not clips:
        return [clip.id for clip in clips]
    found = find_leaders(
        hash_array([clip.hash for clip in clips]),
        map_array([clip.motion_map for clip in clips]),
        hash_bits=config.hash_bits,
        motion_similarity=config.motion_similarity,
        embeddings=np.array([journal.embeddings[c.id] for c in clips], np.float32) if use_embeddings else None,
        embedding_similarity=config.embedding_similarity,
    )
    return [clips[place].id for place in found]


def _shown(
    clips: Sequence[Clip], known: Any, what: str, progress: Callable[[int, int, str], None] | None
) -> Iterator[Clip]:
    """The clips of which nothing is known yet, with progress."""
    for number, clip in enumerate(clips, start=1):
        if clip.id not in known:
            yield clip
        if progress is not None:
            progress(number, len(clips), what)


def _frames(journal: Journal, clip: Clip) -> np.ndarray:
    """(T, H, W, 3) uint8: a few frames spread over a clip."""
    rows = np.unique(((np.arange(_HOOK_FRAMES) + 0.5) / _HOOK_FRAMES * clip.frames).astype(int))
    return read_frames(journal.clip_path(clip.id), indices=rows, backend="pyav")


def _duplicate(clip: Clip, leader: str) -> Rejection:
    return Rejection(
        item=clip.item, source=clip.source, reason="duplicate", detail=f"repeats clip {leader}",
        start=clip.start, end=clip.end, clip=clip.id,
    )  # fmt: skip


def _outcome(root: Path, journal: Journal, *, new: int, spent: float) -> Curated:
    import pyarrow.parquet as pq

    from wam.data.curation.manifest import REJECTED

    info = DatasetInfo.load(root)
    reasons = Counter(pq.read_table(root / REJECTED, columns=["reason"])["reason"].to_pylist())
    return Curated(
        root=root,
        episodes=info.total_episodes,
        seconds=info.total_frames / info.fps,
        raw_seconds=sum(journal.seconds.values()),
        clips=len(journal.clips),
        rejected=dict(reasons.most_common()),
        new=new,
        spent=spent,
    )


def _check_folder(root: Path) -> None:
    if root.is_dir() and not (root / SCRATCH).is_dir() and any(p.name != ".writer.lock" for p in root.iterdir()):
        raise expected(
            f"an empty folder, or one that curation has begun, at {root}", got="other files", do="name a new folder"
        )
    if root.exists() and not root.is_dir():
        raise expected(f"a folder at {root}", got="a file", do="name a new folder")


def _check_settings(root: Path, config: CurateConfig) -> None:
    """Going on with other settings would mix two datasets: name the first setting that differs."""
    path, now = root / SCRATCH / "settings.json", config.fingerprint()
    if not path.is_file():
        write_json(path, now)
        return
    before = json.loads(path.read_text())
    for key in now:
        if before.get(key) != now[key]:
            raise expected(
                f"{key} = {before.get(key)}, as {root} was begun with",
                got=now[key],
                do="go on with the same settings, or curate into another folder",
            )


def _check_sources(root: Path, journal: Journal, found: Found) -> None:
    if others := [item.name for item in found.items if item.id not in journal.finished]:
        raise expected(
            f"the sources that {root} was made of, since it is finished",
            got=f"{len(others)} others, such as {others[0]}",
            do="curate them into a folder of their own; training mixes any number of datasets",
        )
