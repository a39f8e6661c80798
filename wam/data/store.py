"""`EpisodeStore`: a LeRobot v3.0 folder, read by episode; columns are read without touching video."""

from __future__ import annotations

import io
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from wam.contracts import expected
from wam.data.decoders import ReaderPool, choose_backend
from wam.data.depth import PIX_FMT, DepthEncoding
from wam.data.episodes import Episode, data_path, load_episodes, load_tasks, read_table, video_path
from wam.data.features import ACTION, FRAME_FEATURES, STATISTICS_PATH, DatasetInfo, camera_name
from wam.data.statistics import Statistics, compute_statistics
from wam.data.video import TOLERANCE, VideoInfo, corrupt, probe

CACHED_BYTES = 512 * 2**20  # columns kept in memory


class EpisodeStore:
    """Reads a dataset. Safe to share by threads, to pickle and to carry over a fork.

    video_backend: "decord", "pyav", "torchcodec", or "auto" (decord for whole episodes of files where it is exact,
    else pyav; `backend_of` says which). A named backend that would be wrong on a file is an error, never replaced.
    """

    def __init__(self, root: Path | str, *, video_backend: str = "auto", tolerance: float = TOLERANCE) -> None:
        self.root = Path(root)
        self.info = DatasetInfo.load(self.root)
        self.episodes: Sequence[Episode] = tuple(load_episodes(self.root, self.info))
        self.tasks = load_tasks(self.root)
        self.video_backend, self.tolerance = video_backend, tolerance
        self._pool = ReaderPool(video_backend)
        self._columns = _ColumnCache()
        self._intact: dict[Path, VideoInfo] = {}
        if video_backend not in ("auto", "decord", "pyav", "torchcodec"):
            raise expected("video_backend auto, decord, pyav or torchcodec", got=repr(video_backend), do="name one")

    def __len__(self) -> int:
        return len(self.episodes)

    def __repr__(self) -> str:
        return f"EpisodeStore({str(self.root)!r}: {len(self)} episodes, {self.total_frames} frames)"

    @property
    def total_frames(self) -> int:
        return sum(episode.length for episode in self.episodes)

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.info.cameras

    @property
    def action_free(self) -> bool:
        """True if no action was recorded: an ordinary dataset without an action feature."""
        return not any(key == ACTION or key.startswith(f"{ACTION}.") for key in self.info.features)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_intact": {}}

    def episode(self, episode: int | Episode) -> Episode:
        """The episode at a place of `episodes`."""
        if isinstance(episode, Episode):
            return episode
        if not 0 <= episode < len(self.episodes):
            raise expected(f"an episode from 0 to {len(self) - 1}", got=episode, do="choose one of the dataset's")
        return self.episodes[episode]

    def column(self, name: str, episode: int | Episode) -> np.ndarray:
        """(T, ...) values of one feature over an episode, in the feature's own dtype."""
        found = self.episode(episode)
        feature = FRAME_FEATURES.get(name) or self.info.feature(name)
        if feature.dtype == "video":
            raise expected(f"a column of numbers, not {name!r}", got="a video", do="use EpisodeStore.frames")
        values = self._rows(found, name)
        if isinstance(values, list):
            return np.array(values, dtype=object)
        shape = () if name in FRAME_FEATURES else tuple(feature.shape)
        try:
            return values.reshape(len(values), *shape).astype(feature.dtype, copy=False)
        except ValueError as error:
            raise expected(
                f"{name!r} of shape {('T', *feature.shape)} in {data_path(self.root, self.info, found)}",
                got=f"shape {values.shape}",
                do="correct the shape in meta/info.json or write the data again",
            ) from error

    def frames(
        self, camera: str, episode: int | Episode, indices: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """(T, H, W, 3) uint8 frames of a camera at the episode's frame numbers (default all)."""
        found, key = self.episode(episode), self.info.camera_key(camera)
        wanted = self._wanted(found, indices)
        if self.info.features[key].dtype == "image":
            rows = self._rows(found, key)
            return np.stack([_decode_image(rows[int(index)]) for index in wanted])
        return self._shown(found, key, wanted)

    def depth(
        self, camera: str, episode: int | Episode, indices: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """(T, H, W) float32 metres along z of a camera at the episode's frame numbers (default all), 0: not measured."""
        found, key = self.episode(episode), self.info.depth_key(camera)
        info = self.info.features[key].info
        if self.info.features[key].dtype == "image":
            unit = 0.001 if (info or {}).get("depth_unit") == "mm" else 1.0
            rows, wanted = self._rows(found, key), self._wanted(found, indices)
            return np.stack([_decode_depth(rows[int(index)]) for index in wanted]) * np.float32(unit)
        codes = self._shown(found, key, self._wanted(found, indices))
        if codes.dtype != np.uint16:
            raise expected(
                f"depth of {key!r} as 12-bit codes ({PIX_FMT})",
                got=f"a video of {self._video(found, key).pix_fmt}",
                do="record it as LeRobot v3.0 does by default",
            )
        return DepthEncoding.of(info).metres(codes)

    def has_video(self, camera: str, episode: int | Episode) -> bool:
        """True if the camera's file is there for this episode."""
        found, key = self.episode(episode), self.info.camera_key(camera)
        if self.info.features[key].dtype == "image":
            return True
        return key in found.videos and video_path(self.root, self.info, key, found.videos[key]).is_file()

    def backend_of(self, camera: str, episode: int | Episode, *, run: bool = False) -> str:
        """The name of the decoder that reads this video: a few frames of it, or a run such as the whole episode."""
        found = self.episode(episode)
        return choose_backend(self._video(found, self.info.camera_key(camera)), self.video_backend, run=run)

    @cached_property
    def statistics(self) -> Statistics:
        """`meta/stats.json`, or computed if the file is absent."""
        path = self.root / STATISTICS_PATH
        return Statistics.load(path) if path.is_file() else compute_statistics(self)

    def image_statistics(self, episode: int | Episode) -> Statistics:
        """What the episode's row recorded of its cameras; empty if nothing."""
        recorded = self.episode(episode).statistics
        return Statistics({key: recorded[key] for key, f in self.info.features.items() if f.visual and key in recorded})

    def _wanted(self, episode: Episode, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
        wanted = np.arange(episode.length) if indices is None else np.asarray(indices, np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= episode.length):
            raise expected(
                f"frame numbers from 0 to {episode.length - 1} of episode {episode.index}",
                got=f"{wanted.min()} to {wanted.max()}",
                do="stay within the episode",
            )
        return wanted

    def _shown(self, episode: Episode, key: str, wanted: np.ndarray) -> np.ndarray:
        """What the video of a feature shows at these frame numbers."""
        video = self._video(episode, key)
        times = episode.videos[key].start + self.column("timestamp", episode)[wanted].astype(np.float64)
        return self._pool.frames(video, video.indices_at(times, tolerance=self.tolerance))

    def _video(self, episode: Episode, key: str) -> VideoInfo:
        if key not in episode.videos or self.info.video_path is None:
            raise expected(
                f"a video of camera {camera_name(key)!r} in episode {episode.index}",
                got="none",
                do="leave the camera out",
            )
        span = episode.videos[key]
        path = video_path(self.root, self.info, key, span)
        found = probe(path)
        if span.crc32 is not None and self._intact.get(path) is not found:
            if zlib.crc32(path.read_bytes()) != span.crc32:  # decoders hide damage inside a picture
                raise corrupt(path, "content that differs from what was recorded")
            self._intact[path] = found
        return found

    def _rows(self, episode: Episode, name: str) -> Any:
        """The episode's rows of a column: found by the episode_index column, whatever file they are packed in."""
        path = data_path(self.root, self.info, episode)
        owner = self._columns.get(path, "episode_index")
        first, last = np.searchsorted(owner, episode.index), np.searchsorted(owner, episode.index, side="right")
        if last - first != episode.length or (owner[first:last] != episode.index).any():
            raise expected(
                f"{episode.length} rows of episode {episode.index} in {path}",
                got=f"{int((owner == episode.index).sum())}",
                do="restore the file; meta/episodes and data disagree",
            )
        return self._columns.get(path, name)[first:last]


class _ColumnCache:
    """Whole columns of data files as arrays, the longest unused dropped first."""

    def __init__(self) -> None:
        self._arrays: OrderedDict[tuple[Path, str], Any] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def get(self, path: Path, name: str) -> Any:
        with self._lock:
            if (path, name) in self._arrays:
                self._arrays.move_to_end((path, name))
                return self._arrays[path, name]
        table = read_table(path, [name])
        if name not in table.column_names:
            raise expected(f"a column {name!r} in {path}", got="none", do="check meta/info.json against the data")
        values = _to_numpy(table.column(name), where=f"{name!r} in {path}")
        with self._lock:
            self._arrays[path, name] = values
            self._bytes = sum(getattr(array, "nbytes", 0) for array in self._arrays.values())
            while self._bytes > CACHED_BYTES and len(self._arrays) > 1:
                self._bytes -= getattr(self._arrays.popitem(last=False)[1], "nbytes", 0)
        return values

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


def _to_numpy(column: pa.ChunkedArray, *, where: str) -> Any:
    """Nested lists of numbers -> (N, ...) array; texts and encoded images -> a Python list."""
    array, shape = column.combine_chunks(), [len(column)]
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        outer, array = len(array), array.flatten()
        if outer and len(array) % outer:
            raise expected(f"rows of one length in {where}", got="ragged rows", do="write the data again")
        shape.append(len(array) // outer if outer else 0)
    if not (pa.types.is_floating(array.type) or pa.types.is_integer(array.type) or pa.types.is_boolean(array.type)):
        return column.to_pylist()
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _decode_image(value: Any) -> np.ndarray:
    return np.asarray(_open_image(value).convert("RGB"))


def _decode_depth(value: Any) -> np.ndarray:
    """(H, W) float32 in the unit in which it was recorded."""
    return np.asarray(_open_image(value)).astype(np.float32)


def _open_image(value: Any) -> Image.Image:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise expected("encoded image bytes", got=type(data).__name__, do="embed the images in the data files")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image
    except (OSError, ValueError) as error:
        raise expected("a readable image", got=str(error), do="record the episode again") from error
