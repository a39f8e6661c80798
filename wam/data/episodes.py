"""The table of episodes: `meta/episodes/*.parquet` and `meta/tasks.parquet` of LeRobot v3.0, in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.contracts import expected
from wam.data.features import TASKS_PATH, DatasetInfo
from wam.data.statistics import Statistics

_KNOWN = {
    "episode_index",
    "tasks",
    "length",
    "dataset_from_index",
    "dataset_to_index",
    "data/chunk_index",
    "data/file_index",
    "meta/episodes/chunk_index",
    "meta/episodes/file_index",
}


@dataclass(frozen=True, kw_only=True)
class VideoSpan:
    """Where an episode lies in a video file, in seconds. crc32: of the whole file, where the writer recorded it."""

    chunk: int
    file: int
    start: float
    stop: float
    crc32: int | None = None


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode. videos: video key -> where it lies. extra: scalars recorded with it (play, success, seed, ...)."""

    index: int
    length: int
    tasks: tuple[str, ...]
    start: int = 0
    chunk: int = 0
    file: int = 0
    videos: Mapping[str, VideoSpan] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=lambda: Statistics({}), repr=False)

    @property
    def task(self) -> str:
        return self.tasks[0] if self.tasks else ""

    @property
    def play(self) -> bool:
        """True where the actions do not follow from the frame."""
        return bool(self.extra.get("play", False))


def data_path(root: Path, info: DatasetInfo, episode: Episode) -> Path:
    return root / _fill(info.data_path, episode.chunk, episode.file)


def video_path(root: Path, info: DatasetInfo, key: str, span: VideoSpan) -> Path:
    assert info.video_path is not None
    return root / _fill(info.video_path, span.chunk, span.file, key)


def _fill(template: str, chunk: int, file: int, key: str = "") -> str:
    # both spellings of the template's fields are found in published datasets
    return template.format(chunk_index=chunk, file_index=file, episode_chunk=chunk, episode_file=file, video_key=key)


def to_table(episodes: Sequence[Episode], *, meta_chunk: int, meta_file: int) -> pa.Table:
    """Episodes -> rows of the parquet table that LeRobot reads."""
    rows = []
    for episode in episodes:
        row: dict[str, Any] = {
            "episode_index": episode.index,
            "tasks": list(episode.tasks),
            "length": episode.length,
            "dataset_from_index": episode.start,
            "dataset_to_index": episode.start + episode.length,
            "data/chunk_index": episode.chunk,
            "data/file_index": episode.file,
            "meta/episodes/chunk_index": meta_chunk,
            "meta/episodes/file_index": meta_file,
        }
        for key, span in episode.videos.items():
            row |= {
                f"videos/{key}/chunk_index": span.chunk,
                f"videos/{key}/file_index": span.file,
                f"videos/{key}/from_timestamp": span.start,
                f"videos/{key}/to_timestamp": span.stop,
            }
            if span.crc32 is not None:
                row[f"wam/crc32/{key}"] = span.crc32
        for name, feature in episode.statistics.items():
            row |= {f"stats/{name}/{key}": value for key, value in feature.to_json().items()}
        rows.append(row | dict(episode.extra))
    columns = dict.fromkeys(name for row in rows for name in row)
    try:
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in columns})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise expected(
            "one type for each per-episode extra", got=str(error), do="give every episode the same"
        ) from error


def load_episodes(root: Path, info: DatasetInfo) -> list[Episode]:
    """Every episode of a dataset, by index. Of a row present twice (an interrupted merge) the first file's counts."""
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    rows: dict[int, dict[str, Any]] = {}
    for file in files:
        table = read_table(file)
        if missing := {"episode_index", "length"} - set(table.column_names):
            raise expected(f"columns episode_index and length in {file}", got=f"no {sorted(missing)}", do="repair it")
        for row in table.to_pylist():
            rows.setdefault(row["episode_index"], row)
    return [_episode(root, info, rows[index], alone=len(rows) == 1) for index in sorted(rows)]


def _episode(root: Path, info: DatasetInfo, row: Mapping[str, Any], *, alone: bool) -> Episode:
    """alone: the dataset has no other episode, so that missing file positions are known to be zero."""
    if not alone and "data/chunk_index" not in row:
        raise expected(
            f"column data/chunk_index in the episodes of {root}", got="none", do="write the dataset again as v3.0"
        )
    start = row.get("dataset_from_index") or 0
    videos = {}
    for key in info.video_keys:
        place = f"videos/{key}/"
        if not alone and row.get(place + "file_index") is None:
            continue  # the episode lacks this camera
        begin = row.get(place + "from_timestamp") or 0.0
        videos[key] = VideoSpan(
            chunk=row.get(place + "chunk_index") or 0,
            file=row.get(place + "file_index") or 0,
            start=begin,
            stop=row.get(place + "to_timestamp") or begin + row["length"] / info.fps,
            crc32=row.get(f"wam/crc32/{key}"),
        )
    statistics: dict[str, dict[str, Any]] = {}
    extra = {}
    for name, value in row.items():
        if name.startswith("stats/"):
            feature, _, statistic = name.removeprefix("stats/").rpartition("/")
            if value is not None:
                statistics.setdefault(feature, {})[statistic] = value
        elif name not in _KNOWN and not name.startswith(("videos/", "wam/")) and value is not None:
            extra[name] = value
    whole = {name: found for name, found in statistics.items() if {"min", "max", "mean", "std"} <= set(found)}
    return Episode(
        index=row["episode_index"],
        length=row["length"],
        tasks=tuple(row.get("tasks") or ()),
        start=start,
        chunk=row.get("data/chunk_index") or 0,
        file=row.get("data/file_index") or 0,
        videos=videos,
        extra=extra,
        statistics=Statistics.from_json(whole),
    )


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """tasks.parquet: a pandas frame with the index named "task" and the column task_index."""
    import pandas as pd

    frame = pd.DataFrame({"task_index": np.arange(len(tasks))}, index=pd.Index(list(tasks), name="task", dtype=object))
    return pa.Table.from_pandas(frame)


def load_tasks(root: Path) -> list[str]:
    """task_index -> sentence."""
    path = root / TASKS_PATH
    if not path.is_file():
        return []
    table = read_table(path).to_pydict()
    name = "task" if "task" in table else "__index_level_0__"
    if name not in table or "task_index" not in table:
        raise expected(f"columns task and task_index in {path}", got=sorted(table), do="repair the file")
    found = dict(zip(table["task_index"], table[name], strict=True))
    return [found.get(index, "") for index in range(max(found, default=-1) + 1)]


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A parquet file; a missing or damaged one is one clear sentence."""
    if not path.is_file():
        raise expected(f"a parquet file at {path}", got="no such file", do="restore it from a copy")
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise expected(f"a readable parquet file at {path}", got=reason, do="restore it from a copy") from error
