"""Clips to a LeRobot v3.0 folder without actions: their packets are copied, nothing is encoded twice.

`meta/info.json` is written last, so a folder that has one is whole; without it, what lies there is made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from wam.data.atomic import write_parquet
from wam.data.curation.config import CurateConfig
from wam.data.curation.records import Clip
from wam.data.episodes import Episode, VideoSpan, data_path, tasks_table, to_table, video_path
from wam.data.features import (
    EPISODES_PATH,
    FRAME_FEATURES,
    INFO_PATH,
    STATISTICS_PATH,
    TASKS_PATH,
    DatasetInfo,
    Feature,
)
from wam.data.packing import MEGABYTE, pack
from wam.data.rows import frames_table, image_key
from wam.data.statistics import Statistics, merge
from wam.files import disk_error, write_bytes, write_json

_EPISODES_PER_FILE = 10_000  # rows are small: a file of them stays far below the format's size
_CLIPS_PER_FILE = 1000  # in a video file, or fewer where they are large


def dataset_info(config: CurateConfig) -> DatasetInfo:
    """The layout that the settings give."""
    height, width = config.size
    camera = Feature(
        dtype="video",
        shape=(height, width, 3),
        names=["height", "width", "channels"],
        info=config.encoding.info(height=height, width=width, fps=config.fps),
    )
    return DatasetInfo(
        fps=config.fps,
        features={image_key(config.camera): camera, **FRAME_FEATURES},
        robot_type="none",
        extra={"wam": {"curation": config.fingerprint()}},
    )


def write_dataset(
    root: Path,
    config: CurateConfig,
    clips: Sequence[Clip],
    captions: Sequence[str],
    path_of: Callable[[str], Path],
    *,
    before_last: Callable[[], None] = lambda: None,
) -> DatasetInfo:
    """Write the clips as episodes 0, 1, ... of `root`. path_of: a clip's file by its id; it stays where it is.

    before_last: called when only `meta/info.json` is missing. Raises WamError on a full disk; call again then.
    """
    for name in ("data", "videos", "meta"):
        shutil.rmtree(root / name, ignore_errors=True)
    info = dataset_info(config)
    key, tasks = image_key(config.camera), list(dict.fromkeys(captions))
    episodes = _episodes(info, key, clips, captions)
    for episode, clip in zip(episodes, clips, strict=True):
        _place(path_of(clip.id), video_path(root, info, key, episode.videos[key]))
    places = {task: place for place, task in enumerate(tasks)}
    _write_rows(root, info, episodes, [places[caption] for caption in captions])
    groups = _groups([clip.file_bytes for clip in clips], limit=info.video_files_size_in_mb * MEGABYTE)
    joined = [episode for first, stop in groups for episode in pack(root, info, episodes[first:stop])]
    packed = [_summed(root, info, key, episode) for episode in joined]
    kept = {video_path(root, info, key, episode.videos[key]) for episode in packed}
    for path in (root / "videos").rglob("*.mp4"):
        if path not in kept:
            path.unlink()
    write_parquet(root / TASKS_PATH, tasks_table(tasks))
    table = to_table(packed, meta_chunk=0, meta_file=0)
    write_parquet(root / EPISODES_PATH.format(chunk_index=0, file_index=0), table)
    write_json(root / STATISTICS_PATH, merge(episode.statistics for episode in packed).to_json())
    before_last()
    info = dataclasses.replace(
        info,
        total_episodes=len(packed),
        total_frames=sum(episode.length for episode in packed),
        total_tasks=len(tasks),
        splits={"train": f"0:{len(packed)}"},
    )
    write_json(root / INFO_PATH, info.to_dict())
    return info


def _episodes(info: DatasetInfo, key: str, clips: Sequence[Clip], captions: Sequence[str]) -> list[Episode]:
    """Each clip with a video file of its own; a group's numbers are followed by a free one, for the file that joins it."""
    groups = _groups([clip.file_bytes for clip in clips], limit=info.video_files_size_in_mb * MEGABYTE)
    numbers = [place + group for group, (first, stop) in enumerate(groups) for place in range(first, stop)]
    found, start = [], 0
    for index, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
        chunk, file = divmod(numbers[index], info.chunks_size)
        found.append(
            Episode(
                index=index,
                length=clip.frames,
                tasks=(caption,),
                start=start,
                chunk=0,
                file=index // _EPISODES_PER_FILE,
                videos={key: VideoSpan(chunk=chunk, file=file, start=0.0, stop=clip.frames / info.fps)},
                extra={"clip": clip.id, "source": clip.source, "source_start": clip.start, "source_end": clip.end},
                statistics=Statistics.from_json({key: clip.statistics}),
            )
        )
        start += clip.frames
    return found


def _groups(sizes: Sequence[int], *, limit: int) -> list[tuple[int, int]]:
    """(first, stop) of the clips that share a video file of at most `limit` bytes."""
    found, first, held = [], 0, 0
    for place, size in enumerate(sizes):
        if place > first and (held + size > limit or place - first == _CLIPS_PER_FILE):
            found.append((first, place))
            first, held = place, 0
        held += size
    return [*found, (first, len(sizes))]


def _place(path: Path, target: Path) -> None:
    """The clip's file under another name, without copying where the disk allows."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            os.link(path, target)
            return
        shutil.copyfile(path, target)
    except OSError as error:
        raise disk_error(target, error) from error


def _write_rows(root: Path, info: DatasetInfo, episodes: Sequence[Episode], task_indices: Sequence[int]) -> None:
    """The data files: a row group for each episode."""
    options: dict[str, Any] = {"compression": "snappy", "use_dictionary": True, "write_page_checksum": True}
    for first in range(0, len(episodes), _EPISODES_PER_FILE):
        buffer, writer = io.BytesIO(), None
        for place in range(first, min(first + _EPISODES_PER_FILE, len(episodes))):
            episode = episodes[place]
            table = frames_table(info.features, {}, episode, fps=info.fps, task_index=task_indices[place])
            writer = writer or pq.ParquetWriter(buffer, table.schema, **options)
            writer.write_table(table, row_group_size=len(table))
        assert writer is not None
        writer.close()
        write_bytes(data_path(root, info, episodes[first]), buffer.getbuffer())


def _summed(root: Path, info: DatasetInfo, key: str, episode: Episode) -> Episode:
    """With the checksum of its video, where packing has not written one."""
    span = episode.videos[key]
    if span.crc32 is not None:
        return episode
    crc32 = zlib.crc32(video_path(root, info, key, span).read_bytes())
    return dataclasses.replace(episode, videos={key: dataclasses.replace(span, crc32=crc32)})
