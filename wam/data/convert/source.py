"""What every importer gives: a row of episodes, each with its images, columns and task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, kw_only=True)
class SourceEpisode:
    """One episode as read from a foreign file.

    images: camera -> (T, H, W, 3) uint8. columns: LeRobot key -> (T,) or (T, D). task: the instruction, possibly "".
    extra: one value per episode. notes: what was trimmed or left out, in sentences.
    """

    images: Mapping[str, np.ndarray]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    task: str = ""
    extra: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        return len(next(iter([*self.images.values(), *self.columns.values()])))


@runtime_checkable
class Source(Protocol):
    """Episodes by index, so that an interrupted conversion goes on where it stopped.

    fps: frames per second. robot_type: as the source names it, or "unknown". names: column -> one name per dimension,
    where the source gives them. notes: what was left out of the whole source.
    """

    fps: float
    robot_type: str
    names: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SourceEpisode: ...
