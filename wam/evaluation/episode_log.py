"""Finished episodes, one JSON line each, so that a killed evaluation loses none of them.

The first line says what was measured (`identity`); a log of something else is refused rather than mixed in. A line
torn by a kill is cut off when the log is opened again. Recorded frames lie beside the log, one `.npz` per episode.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from wam.contracts import expected
from wam.files import write_bytes


@dataclass(frozen=True, kw_only=True)
class Episode:
    """How one closed-loop episode went. variant: what was varied, such as "policy" or "wrong_text"."""

    environment: str
    seed: int
    variant: str
    instruction: str
    success: bool
    steps: int
    reward: float

    @property
    def key(self) -> tuple[str, int, str]:
        return self.environment, self.seed, self.variant


E = TypeVar("E", bound=Episode)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What an episode looked like: frames (T, V, H, W, 3) uint8, `stride` environment steps apart."""

    episode: Episode
    frames: np.ndarray
    stride: int


class EpisodeLog(Generic[E]):
    """The episodes finished so far, kept in a file if `path` is given and in memory otherwise. kind: of the episodes."""

    def __init__(self, path: str | Path | None, *, identity: Mapping[str, Any], kind: type[E] | None = None) -> None:
        self._kind: type[Any] = kind or Episode
        self.path = Path(path) if path is not None else None
        self.identity = json.loads(json.dumps(dict(identity)))
        self.episodes: dict[tuple[str, int, str], E] = {}
        self.rollouts: list[Rollout] = []
        if self.path is not None:
            self._open(self.path)

    def _open(self, path: Path) -> None:
        if not path.exists() or path.stat().st_size == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write({"identity": self.identity})
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        lines = whole.decode().splitlines()
        if not lines:  # killed while the very first line was written
            self._write({"identity": self.identity})
            return
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                if number == 1:
                    self._check_identity(path, record["identity"])
                else:
                    self._keep(self._kind(**record))
            except (ValueError, TypeError, KeyError) as error:
                raise expected(
                    f"an episode on line {number} of {path}", got=error, do="remove the line or the file and go on"
                ) from error

    def _check_identity(self, path: Path, found: Mapping[str, Any]) -> None:
        if found != self.identity:
            different = sorted(k for k in {*found, *self.identity} if found.get(k) != self.identity.get(k))
            raise expected(
                f"{path} to hold episodes of this evaluation",
                got=", ".join(f"{k} {found.get(k)!r} instead of {self.identity.get(k)!r}" for k in different),
                do="name another file, or remove this one to start again",
            )

    def _keep(self, episode: E) -> None:
        self.episodes[episode.key] = episode
        frames = self._frames_path(episode)
        if frames is not None and frames.exists():
            self.rollouts.append(_read_rollout(episode, frames))

    def add(self, episode: E, rollout: Rollout | None = None) -> None:
        """Keep one finished episode; on disk before this returns."""
        frames = self._frames_path(episode)
        if rollout is not None and frames is not None:
            packed = io.BytesIO()
            np.savez_compressed(packed, frames=rollout.frames, stride=rollout.stride)
            write_bytes(frames, packed.getvalue())
        if self.path is not None:
            self._write(asdict(episode))
        self.episodes[episode.key] = episode
        if rollout is not None:
            self.rollouts.append(rollout)

    def _frames_path(self, episode: Episode) -> Path | None:
        return None if self.path is None else frames_path(self.path, episode)

    def _write(self, record: Mapping[str, Any]) -> None:
        assert self.path is not None
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise expected(
                f"to append an episode to {self.path}",
                got=error.strerror or error,
                do=f"free disk space and run the same command again; {len(self.episodes)} finished episodes are kept",
            ) from error


def frames_path(log: Path, episode: Episode) -> Path:
    """Where an episode's frames lie, if any were recorded."""
    name = f"{episode.environment}-{episode.seed}-{episode.variant}".replace("/", "_")
    return log.with_suffix(".frames") / f"{name}.npz"


def read_log(path: Path) -> tuple[dict[str, Any], list[Episode], list[Rollout]]:
    """What was measured, its finished episodes, and those of them that were recorded. Changes nothing, so that it may be read
    while it is written. Raises WamError for a log that is damaged."""
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].decode(errors="replace").splitlines()
    try:
        identity = dict(json.loads(lines[0])["identity"])
        episodes = [Episode(**json.loads(line)) for line in lines[1:]]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise expected(f"a log of episodes in {path}", got=repr(error), do="evaluate the run again") from error
    places = [(episode, frames_path(path, episode)) for episode in episodes]
    return identity, episodes, [_read_rollout(episode, frames) for episode, frames in places if frames.is_file()]


def _read_rollout(episode: Episode, frames: Path) -> Rollout:
    with np.load(frames, allow_pickle=False) as stored:
        return Rollout(episode=episode, frames=stored["frames"], stride=int(stored["stride"]))
