"""What a dataset holds: `Feature` and `DatasetInfo`, the content of `meta/info.json` of LeRobot v3.0."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wam.contracts import ActionSpace, expected

VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO_PATH, STATISTICS_PATH, TASKS_PATH = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
_NUMBERS = {"float16", "float32", "float64", "bool", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64))}
IMAGE_PREFIXES = ("observation.images.", "observation.image.")
DEPTH_SUFFIX = "_depth"
STATE, ACTION = "observation.state", "action"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of a dataset. shape is that of one frame; a video's is (H, W, 3), (H, W, 1) if of depth. dtype is numpy's or
    video, image."""

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] | None = None

    @property
    def visual(self) -> bool:
        return self.dtype in ("video", "image")

    @property
    def depth(self) -> bool:
        """True where pixels are distances and no colours."""
        info = self.info or {}
        return self.visual and bool(info.get("is_depth_map") or info.get("video.is_depth_map"))

    def to_dict(self) -> dict[str, Any]:
        found = {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}
        return found if self.info is None else found | {"info": dict(self.info)}

    @classmethod
    def from_dict(cls, key: str, data: Mapping[str, Any]) -> Feature:
        if not isinstance(data, Mapping) or "dtype" not in data or "shape" not in data:
            raise expected(f"feature {key!r} with dtype and shape", got=data, do="repair meta/info.json")
        shape = tuple(int(size) for size in data["shape"])
        return cls(dtype=data["dtype"], shape=shape, names=data.get("names"), info=data.get("info"))


# The columns that every data file carries beside the recorded ones.
FRAME_FEATURES = {
    "timestamp": Feature(dtype="float32", shape=(1,)),
    "frame_index": Feature(dtype="int64", shape=(1,)),
    "episode_index": Feature(dtype="int64", shape=(1,)),
    "index": Feature(dtype="int64", shape=(1,)),
    "task_index": Feature(dtype="int64", shape=(1,)),
}


def camera_name(key: str) -> str:
    """observation.images.top -> top; a key of another form names its camera itself."""
    for prefix in IMAGE_PREFIXES:
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """`meta/info.json`. Unknown keys are kept in `extra`; what wam adds lies there under "wam".

    extra["wam"] = {"action_space": ActionSpace.to_dict(), "embodiment": str, "environment": str}
    """

    fps: float
    features: Mapping[str, Feature]
    robot_type: str | None = None
    total_episodes: int = 0
    total_frames: int = 0
    total_tasks: int = 0
    chunks_size: int = 1000
    data_files_size_in_mb: int = 100
    video_files_size_in_mb: int = 200
    data_path: str = DATA_PATH
    video_path: str | None = VIDEO_PATH
    splits: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.fps, (int, float)) and math.isfinite(self.fps) and self.fps > 0):
            raise expected("fps above 0", got=self.fps, do="give the frames per second")

    @property
    def visual_keys(self) -> tuple[str, ...]:
        """The features that are pictures in colour."""
        return tuple(key for key, feature in self.features.items() if feature.visual and not feature.depth)

    @property
    def video_keys(self) -> tuple[str, ...]:
        """The features that lie in video files, those of depth too."""
        return tuple(key for key, feature in self.features.items() if feature.dtype == "video")

    @property
    def cameras(self) -> tuple[str, ...]:
        """The short names of the pictures in colour, in the file's order."""
        return tuple(camera_name(key) for key in self.visual_keys)

    @property
    def numeric(self) -> dict[str, Feature]:
        """The features that hold numbers, the bookkeeping columns apart."""
        return {
            key: feature
            for key, feature in self.features.items()
            if key not in FRAME_FEATURES and feature.dtype in _NUMBERS
        }

    @property
    def wam(self) -> Mapping[str, Any]:
        return self.extra.get("wam") or {}

    @property
    def action_space(self) -> ActionSpace | None:
        space = self.wam.get("action_space")
        return None if space is None else ActionSpace.from_dict(space)

    @property
    def embodiment(self) -> str | None:
        return self.wam.get("embodiment") or self.robot_type

    @property
    def environment(self) -> str | None:
        return self.wam.get("environment")

    def camera_key(self, camera: str) -> str:
        """top -> observation.images.top. Raises WamError for a camera the dataset lacks."""
        for key in self.visual_keys:
            if camera in (key, camera_name(key)):
                return key
        raise expected(f"a camera among {list(self.cameras)}", got=repr(camera), do="name one of the dataset's cameras")

    @property
    def depth_keys(self) -> Mapping[str, str]:
        """Of the cameras that have depth: top -> observation.images.top_depth."""
        keys = [key for key, feature in self.features.items() if feature.depth]
        return {camera_name(key).removesuffix(DEPTH_SUFFIX): key for key in keys}

    def depth_key(self, camera: str) -> str:
        """Raises WamError where that camera has no depth."""
        names = self.depth_keys
        if camera not in names:
            raise expected(
                f"depth of camera {camera!r} (observation.images.{camera}{DEPTH_SUFFIX})",
                got=f"depth of {sorted(names) or 'none'}",
                do="collect with depth=true, or leave depth out",
            )
        return names[camera]

    def feature(self, key: str) -> Feature:
        if key not in self.features:
            raise expected(f"a feature among {sorted(self.features)}", got=repr(key), do="name one of the dataset's")
        return self.features[key]

    def to_dict(self) -> dict[str, Any]:
        fps = int(self.fps) if float(self.fps).is_integer() else self.fps
        return {
            "codebase_version": VERSION,
            "robot_type": self.robot_type,
            "total_episodes": self.total_episodes,
            "total_frames": self.total_frames,
            "total_tasks": self.total_tasks,
            "chunks_size": self.chunks_size,
            "data_files_size_in_mb": self.data_files_size_in_mb,
            "video_files_size_in_mb": self.video_files_size_in_mb,
            "fps": fps,
            "splits": dict(self.splits),
            "data_path": self.data_path,
            "video_path": self.video_path,
            "features": {key: feature.to_dict() for key, feature in self.features.items()},
            **self.extra,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DatasetInfo:
        data = dict(data)
        version = str(data.pop("codebase_version", "unknown"))
        if not version.startswith("v3."):
            raise expected(
                "a dataset of LeRobot v3.0",
                got=f"codebase_version {version!r}",
                do="convert it with `wam data convert`",
            )
        if missing := {"fps", "features"} - set(data):
            raise expected("fps and features in meta/info.json", got=f"no {sorted(missing)}", do="repair the file")
        features = {key: Feature.from_dict(key, value) for key, value in data.pop("features").items()}
        known = {name: data.pop(name) for name in cls.__dataclass_fields__ if name in data and name != "extra"}
        return cls(features=features, extra=data, **known)

    @classmethod
    def load(cls, root: Path | str) -> DatasetInfo:
        path = Path(root) / INFO_PATH
        if not path.is_file():
            raise expected(f"a LeRobot v3.0 dataset at {root}", got=f"no {INFO_PATH}", do="check the path")
        try:
            data = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise expected(f"JSON in {path}", got=str(error), do="restore the file from a copy") from error
        if not isinstance(data, dict):
            raise expected(f"a JSON object in {path}", got=type(data).__name__, do="restore the file from a copy")
        return cls.from_dict(data)
