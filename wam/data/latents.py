"""Latents of a dataset's frames made before training, one file an episode, found by what they were made of and by what.

    FOLDER/KEY/about.json                     whose latents these are: the encoder's digest, cameras, sizes, times
    FOLDER/KEY/AB/ABCDEF....safetensors       one clip: `frames` (T, V, h, w, c), each frame by itself, and for a causal
                                              encoder `future` (T, V, T', h, w, c), drawn from each present

KEY is a digest of all that about.json says, and a clip's name one of its video files and of where it lies in them. So what
was made of other pictures, by another encoder or in another way has another name and is never met, and a clip that is in
two datasets is made once. A file appears whole or not at all: making them can be killed, and goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wam.contracts import expected
from wam.data.episodes import Episode, video_path
from wam.data.store import EpisodeStore
from wam.files import sha256, write_bytes, write_json

FORMAT = 1
"""Of the files; another number gives all of them other names."""


@dataclass(frozen=True, kw_only=True)
class LatentKey:
    """What latents depend on beside the clip. encoder: its digest. cameras, image_size: of the frames it was shown. future:
    offsets of the frames to come that a causal encoder was shown with each present; none for one that takes frames singly.
    half: kept as float16, half the room and no longer equal to what the encoder would give."""

    encoder: str
    cameras: tuple[str, ...]
    image_size: int
    future: tuple[int, ...] = ()
    half: bool = False

    @property
    def digest(self) -> str:
        return _digest({"format": FORMAT, **asdict(self)})


class FileDigests:
    """sha256 of files, each read once. Safe to share by threads."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        with self._lock:
            if path not in self._known:
                self._known[path] = sha256(path)
            return self._known[path]


class LatentFiles:
    """The latents of one key under `folder`."""

    def __init__(self, folder: Path | str, key: LatentKey) -> None:
        self.root, self.key = Path(folder), key
        self.folder = self.root / key.digest[:16]
        self._digests = FileDigests()

    def clip(self, store: EpisodeStore, episode: Episode) -> str:
        """sha256 of what the episode shows: its video files, where it lies in them, and at what times its frames are."""
        shown: dict[str, object] = {}
        for camera in self.key.cameras:
            if camera not in store.cameras:
                shown[camera] = None  # black, and masked
                continue
            key = store.info.camera_key(camera)
            if store.info.features[key].dtype == "image":
                shown[camera] = hashlib.sha256(store.frames(camera, episode).tobytes()).hexdigest()
                continue
            span = episode.videos[key]
            assert store.info.video_path is not None
            shown[camera] = [self._digests.of(video_path(store.root, store.info, key, span)), span.start]
        times = hashlib.sha256(store.column("timestamp", episode).tobytes()).hexdigest()
        return _digest({"shown": shown, "times": times, "length": episode.length})

    def path(self, clip: str) -> Path:
        return self.folder / clip[:2] / f"{clip}.safetensors"

    def has(self, clip: str) -> bool:
        return self.path(clip).is_file()

    def write(self, clip: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Put a clip's latents (T, ...) on the disk, whole or not at all."""
        from safetensors.numpy import save

        about = self.folder / "about.json"
        if not about.is_file():
            write_json(about, {"format": FORMAT, **asdict(self.key)})
        kind = np.float16 if self.key.half else np.float32
        kept = {name: np.ascontiguousarray(values, kind) for name, values in arrays.items()}
        write_bytes(self.path(clip), save(kept, metadata={"clip": clip, "key": self.key.digest}))

    def open(self, clips: Sequence[str], lengths: Sequence[int]) -> Latents:
        """Those of these clips, so many frames each, for reading. Raises WamError if one is missing or is not what it should
        be."""
        missing = [clip for clip in clips if not self.has(clip)]
        if missing:
            raise expected(
                f"latents of {len(clips)} clips in {self.folder}, made of these very videos by this very encoder",
                got=f"{len(clips) - len(missing)} of them",
                do="make the others: wam data cache CONFIG, with the same config and settings; or set data.latents=",
            )
        return Latents([self.path(clip) for clip in clips], clips, lengths, self.key)


class Latents:
    """Latents of some episodes, read from their files frame by frame; nothing is kept in memory."""

    def __init__(self, paths: Sequence[Path], clips: Sequence[str], lengths: Sequence[int], key: LatentKey) -> None:
        self.paths, self.key = list(paths), key
        self.clips = list(clips)
        for path, clip, length in zip(paths, clips, lengths, strict=True):
            self._check(path, clip, length)

    def read(self, episode: int, past: np.ndarray, future: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the episode at this place: latents (V, T, h, w, c) of the frames `past` (T,), and (V, T', h, w, c) of `future`,
        which are the frames to come, or the present alone where the encoder is causal."""
        from safetensors import safe_open

        with safe_open(self.paths[episode], framework="numpy") as file:
            seen = _rows(file.get_slice("frames"), past)
            if self.key.future:
                ahead = file.get_slice("future")[int(future[-1]) : int(future[-1]) + 1][0]
            else:
                ahead = _rows(file.get_slice("frames"), future) if len(future) else seen[:, :0]
        return seen.astype(np.float32), ahead.astype(np.float32)

    def _check(self, path: Path, clip: str, length: int) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                said = file.metadata() or {}
                lengths = {name: file.get_slice(name).get_shape()[0] for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise expected(
                f"readable latents in {path}", got=str(error), do="delete the file and make it anew"
            ) from error
        wanted = {"frames", "future"} if self.key.future else {"frames"}
        if said != {"clip": clip, "key": self.key.digest} or lengths != dict.fromkeys(wanted, length):
            raise expected(
                f"latents of {length} frames of clip {clip[:12]} in {path}",
                got=f"{lengths} of clip {said.get('clip', '?')[:12]}",
                do="delete the file and make it anew",
            )


def _rows(part: object, rows: np.ndarray) -> np.ndarray:
    """Rows (T,) of a tensor on the disk (N, V, ...) -> (V, T, ...)."""
    return np.concatenate([part[int(row) : int(row) + 1] for row in rows]).swapaxes(0, 1)  # type: ignore[index]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
