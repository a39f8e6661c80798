"""`EpisodeWriter`: episodes into a LeRobot v3.0 folder, each whole or not at all.

An episode counts once its row lies in `meta/episodes`, which is written last; whatever an interrupted one left is
removed on resume. So after kill -9 at any point the folder is readable and no finished episode is lost. Until `finalize`
packs them, every episode has files of its own (data, one video per camera), which the format allows too.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from wam.contracts import ActionSpace, expected
from wam.data.atomic import hold, write_parquet
from wam.data.depth import DepthEncoding, encode_depth
from wam.data.episodes import (
    Episode,
    VideoSpan,
    data_path,
    load_episodes,
    load_tasks,
    tasks_table,
    to_table,
    video_path,
)
from wam.data.features import (
    ACTION,
    EPISODES_PATH,
    FRAME_FEATURES,
    INFO_PATH,
    STATISTICS_PATH,
    TASKS_PATH,
    DatasetInfo,
    Feature,
)
from wam.data.packing import pack
from wam.data.rows import check_episode, depth_key, frames_table, image_key, plain_scalars, wrong_images
from wam.data.statistics import FeatureStatistics, Statistics, compute_statistics, merge
from wam.data.video import VideoEncoding, encode_video
from wam.files import TEMPORARY, write_bytes, write_json


class EpisodeWriter:
    """Writes a dataset, one process at a time.

        with EpisodeWriter(root, fps=20, action_space=space, resume=True) as writer:
            writer.add_episode(
                images={"side": frames},                        # (T, H, W, 3) uint8 each
                columns={"observation.state": s, "action": a},  # (T, S), (T, A); action-free video has no action
                task="open the faucet",
                extra={"play": False, "success": True, "seed": 7},
            )

    features: the layout; taken from the first episode if not given. extra: further keys for info.json.
    resume: go on where an earlier writer stopped (or start, if nothing is there).
    """

    def __init__(
        self,
        root: Path | str,
        *,
        fps: float,
        features: Mapping[str, Feature] | None = None,
        robot_type: str | None = None,
        action_space: ActionSpace | None = None,
        embodiment: str | None = None,
        environment: str | None = None,
        extra: Mapping[str, Any] | None = None,
        encoding: VideoEncoding | None = None,
        resume: bool = False,
    ) -> None:
        self.root, self.encoding = Path(root), encoding or VideoEncoding()
        wam = {
            "action_space": action_space and action_space.to_dict(),
            "embodiment": embodiment,
            "environment": environment,
        }
        wam = {key: value for key, value in wam.items() if value is not None}
        self.info = DatasetInfo(
            fps=fps,
            features={**(features or {}), **(FRAME_FEATURES if features else {})},
            robot_type=robot_type or embodiment,
            extra={**(extra or {}), **({"wam": {**(extra or {}).get("wam", {}), **wam}} if wam else {})},
        )
        self._episodes: list[Episode] = []
        self._tasks: list[str] = []
        self._statistics: Statistics = Statistics({})
        self._action_space = action_space
        existing = (self.root / INFO_PATH).is_file()
        if not resume and (existing or (self.root.is_dir() and any(self.root.iterdir()))):
            raise expected(
                f"no dataset yet at {self.root}",
                got="a folder with files",
                do="pass resume=True or choose another folder",
            )
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = hold(self.root)
        try:
            if existing:
                self._continue()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._episodes)

    @property
    def episodes(self) -> Sequence[Episode]:
        """The finished episodes."""
        return tuple(self._episodes)

    def add_episode(
        self,
        *,
        images: Mapping[str, np.ndarray],
        columns: Mapping[str, np.ndarray],
        task: str,
        extra: Mapping[str, bool | int | float | str] | None = None,
        depth: Mapping[str, np.ndarray] | None = None,
    ) -> int:
        """Write one episode and return its index. Once this returns, the episode outlives any crash.

        images: camera -> (T, H, W, 3) uint8. columns: feature -> (T, ...) numbers. depth: camera -> (T, H, W) float metres
        along z, 0 where nothing was measured. Raises WamError on other shapes, NaN or a full disk; the episodes before
        stay as they were.
        """
        if self._lock is None:
            raise expected("an open writer", got="one that was closed", do="open it again with resume=True")
        images = {image_key(camera): np.asarray(frames) for camera, frames in images.items()}
        columns = {name: np.asarray(values) for name, values in columns.items()}
        metres = {depth_key(camera): np.asarray(values) for camera, values in (depth or {}).items()}
        features = self._features(images, columns, metres)
        length = check_episode(features, images, columns, metres, action_space=self._action_space)
        if not self.info.features:
            self.info = dataclasses.replace(self.info, features=features)

        index, start = len(self._episodes), sum(episode.length for episode in self._episodes[-1:])
        start += self._episodes[-1].start if self._episodes else 0
        number = self._next_file()
        chunk, file = divmod(number, self.info.chunks_size)
        span = VideoSpan(chunk=chunk, file=file, start=0.0, stop=length / self.info.fps)
        tasks = self._tasks if task in self._tasks else [*self._tasks, task]
        videos = {key: self._encode(key, frames) for key, frames in images.items()}
        for key, values in metres.items():
            scale = DepthEncoding.of(features[key].info)
            videos[key] = encode_depth(values, fps=self.info.fps, encoding=scale)
        statistics = {name: FeatureStatistics.of(values) for name, values in columns.items()}
        statistics |= {key: FeatureStatistics.of_images(frames) for key, frames in images.items()}
        statistics |= {key: FeatureStatistics.of_depth(values) for key, values in metres.items()}
        episode = Episode(
            index=index,
            length=length,
            tasks=(task,),
            start=start,
            chunk=chunk,
            file=file,
            videos={key: dataclasses.replace(span, crc32=zlib.crc32(video)) for key, video in videos.items()},
            extra=plain_scalars(extra or {}),
            statistics=Statistics(statistics),
        )
        for key, video in videos.items():
            write_bytes(video_path(self.root, self.info, key, span), video)
        table = frames_table(features, columns, episode, fps=self.info.fps, task_index=tasks.index(task))
        write_parquet(data_path(self.root, self.info, episode), table)
        if tasks is not self._tasks or index == 0:
            write_parquet(self.root / TASKS_PATH, tasks_table(tasks))
            self._tasks = tasks
        if index == 0:
            write_json(self.root / INFO_PATH, self.info.to_dict())
        write_parquet(self._row_path(number), to_table([episode], meta_chunk=chunk, meta_file=file))
        # From here on the episode is finished; what follows is repaired on resume if it does not come to pass.
        self._episodes.append(episode)
        self._statistics = merge([self._statistics, episode.statistics])
        self._write_summary()
        return index

    def finalize(self) -> None:
        """Pack the files, one table of episodes, exact quantiles, final totals. Then the writer is closed."""
        if self._lock is None:
            return
        if self._episodes:
            from wam.data.store import EpisodeStore

            self._episodes = pack(self.root, self.info, self._episodes)
            path = self._row_path(0)
            write_parquet(path, to_table(self._episodes, meta_chunk=0, meta_file=0))
            # From here on the packed files count; the first table of episodes has the word.
            for other in sorted((self.root / "meta/episodes").glob("*/*.parquet")):
                if other != path:
                    other.unlink()
            self._sweep()
            self._statistics = compute_statistics(EpisodeStore(self.root))
            self._write_summary()
        self.close()

    def close(self) -> None:
        """Let go of the folder without finalizing; a later writer may resume."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finalize() if kind is None else self.close()

    def _continue(self) -> None:
        """Take up the episodes that are there; remove what an interrupted one left behind."""
        found = DatasetInfo.load(self.root)
        wanted = {key: feature.to_dict() for key, feature in self.info.features.items()}
        layout = {key: feature.to_dict() for key, feature in found.features.items()}
        changed = [key for key in wanted if _layout(wanted[key]) != _layout(layout.get(key))]
        if found.fps != self.info.fps or changed:
            raise expected(
                f"the layout of {self.root}: {found.fps:g} fps and features {sorted(layout)}",
                got=f"{self.info.fps:g} fps" + (f" and another {changed[0]!r}" if changed else ""),
                do="use the same settings to resume, or write to another folder",
            )
        if self.info.wam and dict(found.wam) != dict(self.info.wam):
            raise expected(
                f"the action space, embodiment and environment of {self.root}",
                got="others",
                do="write to another folder",
            )
        self.info = found
        self._action_space = found.action_space
        self._episodes = load_episodes(self.root, found)
        self._tasks = load_tasks(self.root)
        self._statistics = merge(episode.statistics for episode in self._episodes)
        self._sweep()
        self._write_summary()

    def _sweep(self) -> None:
        """Remove the files that no episode lies in."""
        kept = {data_path(self.root, self.info, episode) for episode in self._episodes}
        kept |= {
            video_path(self.root, self.info, k, s) for episode in self._episodes for k, s in episode.videos.items()
        }
        written = [*(self.root / "data").rglob("*.parquet"), *(self.root / "videos").rglob("*.mp4")]
        for path in [*self.root.rglob(f"*{TEMPORARY}"), *written]:
            if path not in kept:
                path.unlink()

    def _write_summary(self) -> None:
        count, frames = len(self._episodes), sum(episode.length for episode in self._episodes)
        self.info = dataclasses.replace(
            self.info,
            total_episodes=count,
            total_frames=frames,
            total_tasks=len(self._tasks),
            splits={"train": f"0:{count}"},
        )
        write_json(self.root / STATISTICS_PATH, self._statistics.to_json())
        write_json(self.root / INFO_PATH, self.info.to_dict())

    def _next_file(self) -> int:
        """A file number that neither a data file, a video nor a table of episodes has."""
        places = [(e.chunk, e.file) for e in self._episodes]
        places += [(span.chunk, span.file) for e in self._episodes for span in e.videos.values()]
        return 1 + max((chunk * self.info.chunks_size + file for chunk, file in places), default=-1)

    def _row_path(self, number: int) -> Path:
        chunk, file = divmod(number, self.info.chunks_size)
        return self.root / EPISODES_PATH.format(chunk_index=chunk, file_index=file)

    def _features(
        self, images: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], depth: Mapping[str, np.ndarray]
    ) -> Mapping[str, Feature]:
        if self.info.features:
            return self.info.features
        found: dict[str, Feature] = {}
        for name, values in columns.items():
            dtype = "float32" if values.dtype == np.float16 else str(values.dtype)
            names = list(self._action_space.names) if name == ACTION and self._action_space else None
            found[name] = Feature(dtype=dtype, shape=values.shape[1:] or (1,), names=names)
        for key, frames in images.items():
            if frames.ndim != 4:
                raise wrong_images(key, frames)
            height, width = frames.shape[1:3]
            found[key] = video_feature(self.encoding.info(height=height, width=width, fps=self.info.fps))
        for key, values in depth.items():
            height, width = values.shape[1:3]
            found[key] = video_feature(DepthEncoding().info(height=height, width=width, fps=self.info.fps))
        return found | FRAME_FEATURES

    def _encode(self, key: str, frames: np.ndarray) -> bytes:
        try:
            return encode_video(frames, fps=self.info.fps, encoding=self.encoding)
        except (av.error.FFmpegError, ValueError) as error:
            raise expected(
                f"frames that {self.encoding.codec} can encode for {key!r}",
                got=str(error),
                do="choose another encoding",
            ) from error


def video_feature(info: Mapping[str, Any]) -> Feature:
    """The feature of a camera, or of its depth, that an encoding describes."""
    shape = (info["video.height"], info["video.width"], info["video.channels"])
    return Feature(dtype="video", shape=shape, names=["height", "width", "channels"], info=info)


def _layout(feature: Mapping[str, Any] | None) -> Any:
    return feature and (feature["dtype"], list(feature["shape"]))
