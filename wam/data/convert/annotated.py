"""Folders of videos with a JSON file of states or actions beside them, as many robot papers publish their samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import expected
from wam.data.convert.frames import VIDEO_ENDINGS, read_video
from wam.data.convert.source import SourceEpisode
from wam.data.video import probe

_STATE_KEYS = ("states", "state")
_ACTION_KEYS = ("actions", "action")
_RAW_ACTIONS = ("action.cartesian_position", "action.gripper_position")
_POSE_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def find_annotated(path: Path) -> list[tuple[Path, list[Path]]]:
    """(JSON file, its videos) for every folder that holds exactly one annotation and at least one video."""
    folders = [path, *sorted(p for p in path.rglob("*") if p.is_dir())] if path.is_dir() else []
    found = []
    for folder in folders:
        videos = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_ENDINGS)
        notes = [p for p in sorted(folder.glob("*.json")) if _is_annotation(p)] if videos else []
        if len(notes) == 1:
            found.append((notes[0], videos))
    return found


class AnnotatedVideoSource:
    """One episode per folder: the videos are its cameras, the JSON gives states and actions per video frame.

    Understood are a bare list of actions, `states`, `actions`, `texts`, `success`, and raw commands
    (`action.cartesian_position` with `action.gripper_position`) at a whole multiple of the video's rate, of which those
    at the video frames are kept. Where a video has a frame more than there are rows, the last frame is dropped.
    """

    robot_type = "unknown"

    def __init__(self, path: Path, *, fps: float | None = None) -> None:
        self._episodes = find_annotated(path)
        if not self._episodes:
            raise expected(
                f"folders with videos and one JSON annotation under {path}", got="none", do="give their folder"
            )
        rates = {probe(video).fps for _, videos in self._episodes for video in videos}
        if fps is None and len(rates) > 1:
            raise expected("videos of one rate", got=f"rates {sorted(rates)}", do="convert the folders apart")
        self.fps = fps or rates.pop()
        self._kept: set[str] | None = None
        tables = [self._columns(i) for i in range(len(self._episodes))]
        self._kept = set.intersection(*(set(t) for t in tables))
        partial = sorted(set().union(*tables) - self._kept)
        self.notes: tuple[str, ...] = (f"{', '.join(partial)} is in some episodes only: left out",) if partial else ()
        self.names: Mapping[str, tuple[str, ...]] = {
            k: _POSE_NAMES for k in self._kept if tables[0][k].shape[1] == len(_POSE_NAMES)
        }

    def __len__(self) -> int:
        return len(self._episodes)

    def _columns(self, index: int) -> dict[str, np.ndarray]:
        file, videos = self._episodes[index]
        content = json.loads(file.read_text())
        if isinstance(content, list):
            content = {"actions": content}
        found = {}
        for column, keys in (("observation.state", _STATE_KEYS), ("action", _ACTION_KEYS)):
            for key in keys:
                if key in content:
                    found[column] = _table(content[key], f"{key} of {file}")
        if "joints" in content:
            found["observation.joints"] = _table(content["joints"], f"joints of {file}")
        if "action" not in found and all(k in content for k in _RAW_ACTIONS):
            pose, gripper = (_table(content[k], f"{k} of {file}") for k in _RAW_ACTIONS)
            stride = -(-len(pose) // probe(videos[0]).frames)
            found["action"] = np.concatenate([pose, gripper], axis=1)[::stride]
        return {k: v for k, v in found.items() if self._kept is None or k in self._kept}

    def __getitem__(self, index: int) -> SourceEpisode:
        file, videos = self._episodes[index]
        content: Any = json.loads(file.read_text())
        content = content if isinstance(content, dict) else {}
        columns = self._columns(index)
        images = {video.stem: read_video(video) for video in videos}
        lengths = {f"video {k}": len(v) for k, v in images.items()} | {k: len(v) for k, v in columns.items()}
        kept = min(lengths.values())
        if max(lengths.values()) > kept + 2:
            shown = ", ".join(f"{k} {v}" for k, v in lengths.items())
            raise expected(f"one row per frame in {file}", got=shown, do="repair it, or use skip_damaged=true")
        notes = tuple(f"{k} has {v} rows or frames: kept the first {kept}" for k, v in lengths.items() if v > kept)
        texts = content.get("texts") or [""]
        extra: dict[str, bool] = {"success": bool(content["success"])} if "success" in content else {}
        return SourceEpisode(
            images={k: v[:kept] for k, v in images.items()},
            columns={k: v[:kept] for k, v in columns.items()},
            task=str(texts[0]),
            extra=extra,
            notes=notes,
        )


def _is_annotation(path: Path) -> bool:
    try:
        content = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise expected(f"JSON at {path}", got=str(error), do="restore or remove the file") from error
    if isinstance(content, list):
        return bool(content) and isinstance(content[0], list)
    return isinstance(content, Mapping) and any(k in content for k in (*_STATE_KEYS, *_ACTION_KEYS))


def _table(rows: Any, what: str) -> np.ndarray:
    try:
        value = np.array(rows, np.float32)
    except ValueError as error:
        raise expected(f"{what} with rows of one length", got=str(error), do="repair the file") from error
    return value[:, None] if value.ndim == 1 else value
