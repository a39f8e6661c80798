"""LeRobot datasets of versions 2.0 and 2.1: one parquet file and one video per camera for every episode."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.contracts import WamError, expected
from wam.data.convert.frames import decode_still, read_video
from wam.data.convert.source import SourceEpisode
from wam.data.video import probe

_BOOKKEEPING = {"index", "episode_index", "frame_index", "timestamp", "task_index"}
_TRIMMED = 2  # frames by which video and table may differ before the episode counts as damaged


class LerobotV2Source:
    """The episodes of `meta/episodes.jsonl` whose files are there; the names of cameras and columns stay.

    A camera or an episode that is listed but has no file at all is left out and named in `notes`; an episode of which
    only a part is missing is an error, since something was lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        info = _json(path / "meta/info.json")
        if not str(info.get("codebase_version", "")).startswith("v2"):
            raise expected(
                f"codebase_version v2.0 or v2.1 in {path}/meta/info.json",
                got=repr(info.get("codebase_version")),
                do="v3.0 is read directly, without a conversion",
            )
        for key in ("fps", "features", "data_path"):
            if key not in info:
                raise expected(f"{key!r} in {path}/meta/info.json", got="no such key", do="restore the file")
        self.info = info
        self.fps = float(info["fps"])
        self.robot_type = str(info.get("robot_type") or "unknown")
        features: Mapping[str, Any] = info["features"]
        self.names: Mapping[str, tuple[str, ...]] = {k: names for k, f in features.items() if (names := _flat_names(f))}
        listed = sorted(_jsonl(path / "meta/episodes.jsonl"), key=lambda e: e["episode_index"])
        self.tasks = {t["task_index"]: str(t["task"]) for t in _jsonl(path / "meta/tasks.jsonl")}
        self.episodes = [e for e in listed if self._data_file(e["episode_index"]).is_file()]
        if not self.episodes:
            raise expected(
                f"data files of the {len(listed)} listed episodes in {path}", got="none", do="fetch the data too"
            )
        videos = [k for k, f in features.items() if f["dtype"] == "video"]
        self.videos = [
            k for k in videos if any(self._video_file(k, e["episode_index"]).is_file() for e in self.episodes)
        ]
        self.stills = [k for k, f in features.items() if f["dtype"] == "image"]
        missing = [str(e["episode_index"]) for e in listed if e not in self.episodes]
        notes = [f"episodes {', '.join(missing)} are listed but have no files"] if missing else []
        notes += [f"camera {k} is declared but has no videos" for k in videos if k not in self.videos]
        self.notes: tuple[str, ...] = tuple(notes)

    def _file(self, template: str, index: int, **fields: str) -> Path:
        chunk = index // int(self.info.get("chunks_size", 1000))
        return self.path / template.format(episode_chunk=chunk, episode_index=index, **fields)

    def _data_file(self, index: int) -> Path:
        return self._file(self.info["data_path"], index)

    def _video_file(self, key: str, index: int) -> Path:
        return self._file(self.info["video_path"], index, video_key=key)

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> SourceEpisode:
        entry = self.episodes[index]
        number = entry["episode_index"]
        table = _table(self._data_file(number))
        columns, notes = {}, []
        for key in table.column_names:
            if key in _BOOKKEEPING or key in self.stills:
                continue
            value = _array(table, key)
            if value is None:
                notes.append(f"left out column {key} of type {table.schema.field(key).type}")
            else:
                columns[key] = value
        images = {}
        for key in self.stills:
            where = f"{key} of {self._data_file(number)}"
            cells = table[key].to_pylist()
            images[_camera(key)] = np.stack([decode_still(_bytes(c, self.path, where), where=where) for c in cells])
        length = table.num_rows
        for key in self.videos:
            file = self._video_file(key, number)
            if not file.is_file():
                raise expected(f"the video {file}", got="no such file", do="restore it, or use skip_damaged=true")
            if abs((count := probe(file).frames) - length) > _TRIMMED:
                raise _unequal(file, count, table.num_rows)
            images[_camera(key)] = read_video(file)
        shortest = min([length, *(len(v) for v in images.values())])
        if shortest < length - _TRIMMED:
            raise _unequal(self.path, shortest, length)
        for name, frames in images.items():
            if len(frames) != shortest or shortest != length:
                notes.append(f"{len(frames)} frames of {name} for {length} rows: kept the first {shortest}")
        return SourceEpisode(
            images={k: v[:shortest] for k, v in images.items()},
            columns={k: v[:shortest] for k, v in columns.items()},
            task=self._task(entry, table),
            notes=tuple(notes),
        )

    def _task(self, entry: Mapping[str, Any], table: pa.Table) -> str:
        if "task_index" in table.column_names and table.num_rows:
            first = int(np.ravel(table["task_index"][0].as_py())[0])
            if first in self.tasks:
                return self.tasks[first]
        return str((entry.get("tasks") or [""])[0])


def _unequal(path: Path, frames: int, rows: int) -> WamError:
    return expected(
        f"{rows} frames in {path}, as many as its episode has rows", got=frames,
        do="fetch the video again, or leave the episode out with skip_damaged=true",
    )  # fmt: skip


def _camera(key: str) -> str:
    return key.removeprefix("observation.").removeprefix("images.").removeprefix("image.").replace("/", "_")


def _flat_names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """One name per dimension, where the source gives a flat list or {"motors": [...]}."""
    names = feature.get("names")
    if isinstance(names, Mapping) and len(names) == 1:
        names = next(iter(names.values()))
    if feature["dtype"] in ("video", "image") or not isinstance(names, list):
        return ()
    return tuple(map(str, names)) if len(names) == int(np.prod(feature["shape"])) else ()


def _array(table: pa.Table, key: str) -> np.ndarray | None:
    """(T,) or (T, D), or None for what is not a number. Ragged lists are an error."""
    kind = table.schema.field(key).type
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    try:
        value = np.array(table[key].to_pylist())
    except ValueError as error:
        raise expected(
            f"column {key} with rows of one length", got=str(error), do="repair or drop the episode"
        ) from error
    return value.reshape(len(value), -1) if value.ndim > 1 else value


def _bytes(cell: Any, root: Path, where: str) -> bytes:
    if isinstance(cell, dict) and cell.get("bytes"):
        return cell["bytes"]
    if isinstance(cell, dict) and cell.get("path") and (file := root / cell["path"]).is_file():
        return file.read_bytes()
    raise expected(f"image bytes in {where}", got=type(cell).__name__, do="restore the images")


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise expected(f"a whole parquet file at {path}", got=str(error), do="fetch the file again") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise expected(f"JSON at {path}", got=str(error), do="restore the file") from error


def _jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, json.JSONDecodeError) as error:
        raise expected(f"one JSON object per line at {path}", got=str(error), do="restore the file") from error
