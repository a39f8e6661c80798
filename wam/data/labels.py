"""Labels computed from a dataset and kept beside it, one file an episode, so that the dataset itself stays as it is.

    ROOT/labels/NAME/about.json              what they are and how they were made
    ROOT/labels/NAME/episode-000000.npz      arrays whose first axis is the episode's frames

Those of occupancy hold `filled`, where not all is known `known`, and where colours were asked for `shown`, each (T, bytes)
with eight voxels a byte, and `colour` (T, M, 4) uint8, in their order and then zeros, as `wam.geometry.surface` has them.

A file appears whole or not at all, so making them can be interrupted, and goes on with the episodes that lack one.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import expected
from wam.data.episodes import Episode
from wam.data.store import EpisodeStore
from wam.files import write_bytes, write_json
from wam.geometry.grid import UNKNOWN, VoxelConfig

OCCUPANCY = "occupancy"


def has_labels(root: Path | str, name: str) -> bool:
    """Whether any labels of that name were made for the dataset."""
    return (Path(root) / "labels" / name / "about.json").is_file()


def has_colours(root: Path | str) -> bool:
    """Whether the dataset's occupancy labels hold colours too."""
    return has_labels(root, OCCUPANCY) and bool(Labels(root, OCCUPANCY).about.get("colour"))


def about_voxels(grid: VoxelConfig, source: Mapping[str, Any], *, colour: bool) -> dict[str, Any]:
    """What about.json says of occupancy labels. source: what they were made from."""
    return {"grid": asdict(grid), **source, **({"colour": True} if colour else {})}


class Labels:
    """One kind of labels of one dataset.

    about: how they are made now, as JSON has it; labels that were made otherwise are refused. None: as they were made.
    """

    def __init__(self, root: Path | str, name: str, *, about: Mapping[str, Any] | None = None) -> None:
        self.root, self.name = Path(root), name
        self.folder = self.root / "labels" / name
        path = self.folder / "about.json"
        try:
            before = json.loads(path.read_text()) if path.is_file() else None
        except ValueError as error:
            raise expected(
                f"readable JSON in {path}", got=str(error), do="delete that folder to make them anew"
            ) from error
        if before is None and about is None:
            raise expected(f"{name} labels in {self.folder}", got="none", do=f"make them: wam data label {self.root}")
        if before is not None and about is not None and before != dict(about):
            other = [key for key in {**before, **about} if before.get(key) != about.get(key)]
            raise expected(
                f"labels made as those in {self.folder}",
                got=f"other {', '.join(sorted(other))}",
                do="use the same settings, or delete that folder to make them anew",
            )
        if before is None:
            before = dict(about or {})
            write_json(path, before)
        self.about: dict[str, Any] = before

    def has(self, episode: Episode) -> bool:
        return self._path(episode).is_file()

    def missing(self, store: EpisodeStore) -> list[Episode]:
        """The episodes that have no labels yet."""
        return [episode for episode in (store.episode(i) for i in range(len(store))) if not self.has(episode)]

    def write(self, episode: Episode, arrays: Mapping[str, np.ndarray]) -> None:
        """Arrays (T, ...) of an episode of T frames."""
        self._check(episode, arrays)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_bytes(self._path(episode), buffer.getbuffer())

    def read(self, episode: Episode) -> dict[str, np.ndarray]:
        """Raises WamError where they are missing, damaged or of another length."""
        path = self._path(episode)
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
        except FileNotFoundError as error:
            raise expected(
                f"{self.name} labels of episode {episode.index}", got=f"no {path}", do=f"wam data label {self.root}"
            ) from error
        except (ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise expected(
                f"readable labels in {path}", got=str(error), do="delete the file and make it anew"
            ) from error
        self._check(episode, arrays)
        return arrays

    def _path(self, episode: Episode) -> Path:
        return self.folder / f"episode-{episode.index:06d}.npz"

    def _check(self, episode: Episode, arrays: Mapping[str, np.ndarray]) -> None:
        lengths = {name: len(values) for name, values in arrays.items()}
        if not lengths or set(lengths.values()) != {episode.length}:
            raise expected(
                f"{self.name} labels of {episode.length} frames for episode {episode.index}",
                got=lengths or "none",
                do="make them anew",
            )


class VoxelLabels:
    """The occupancy labels of these episodes' frames, one after the other, eight voxels a byte.

    colour: with the colours of what is shown. Raises WamError where the labels were made without."""

    def __init__(self, root: Path | str, episodes: Sequence[Episode], *, colour: bool = False) -> None:
        labels = Labels(root, OCCUPANCY)
        if colour and not labels.about.get("colour"):
            raise expected(
                f"occupancy labels with colours in {labels.folder}",
                got="labels that were made without",
                do=f"delete that folder and run `wam data label {labels.root} --colour`, or train with "
                "model.occupancy.colour_weight=0",
            )
        self.shape = tuple(labels.about["grid"]["shape"])
        read = [labels.read(episode) for episode in episodes]
        self.filled = np.concatenate([arrays["filled"] for arrays in read])
        self.known = np.concatenate([arrays["known"] for arrays in read]) if "known" in read[0] else None
        if colour:
            self._shown = np.concatenate([arrays["shown"] for arrays in read])
            counts = [np.unpackbits(arrays["shown"], axis=1).sum(1, dtype=np.int64) for arrays in read]
            self._first = np.concatenate([[0], np.concatenate(counts).cumsum()])
            parts = [a["colour"][_first_of(a["colour"], n)] for a, n in zip(read, counts, strict=True)]
            self._paint = np.concatenate(parts).view(np.uint32)[:, 0]  # four bytes as one number, to place at once

    def __len__(self) -> int:
        return len(self.filled)

    def grids(self, frames: np.ndarray) -> np.ndarray:
        """frames (...) -> (..., X, Y, Z) uint8 as `Batch.occupancy`: 0 free, 1 occupied, 2 unknown."""
        found = unpack_voxels(self.filled[frames], self.shape)
        if self.known is not None:
            found[unpack_voxels(self.known[frames], self.shape) == 0] = UNKNOWN
        return found

    def colours(self, frames: np.ndarray) -> np.ndarray:
        """frames (...) -> (..., X, Y, Z, 4) uint8 as `Batch.occupancy_colour`, of labels opened with their colours."""
        flat = np.asarray(frames).reshape(-1)
        found = np.zeros(len(flat) * int(np.prod(self.shape)), np.uint32)
        values = [self._paint[self._first[frame] : self._first[frame + 1]] for frame in flat]
        shown = np.unpackbits(self._shown[flat], axis=-1, count=int(np.prod(self.shape)))
        found[np.flatnonzero(shown)] = np.concatenate(values)
        return found.view(np.uint8).reshape(*np.shape(frames), *self.shape, 4)


def pack_colours(painted: np.ndarray) -> dict[str, np.ndarray]:
    """(T, X, Y, Z, 4) uint8, zeros where no colour is known -> the arrays `shown` and `colour` of a label file."""
    shown = painted[..., 3] > 0
    counts = shown.reshape(len(shown), -1).sum(1)
    colour = np.zeros((len(shown), int(counts.max(initial=0)), 4), np.uint8)
    colour[_first_of(colour, counts)] = painted[shown]
    return {"shown": pack_voxels(shown), "colour": colour}


def _first_of(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(T, M) bool: the first counts (T,) of each of the rows (T, M, ...)."""
    return np.arange(rows.shape[1]) < counts[:, None]


def pack_voxels(grid: np.ndarray) -> np.ndarray:
    """(T, X, Y, Z) bool -> (T, bytes) uint8: eight voxels a byte."""
    return np.packbits(grid.reshape(len(grid), -1), axis=1)


def unpack_voxels(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(..., bytes) uint8 -> (..., X, Y, Z) uint8 of 0 and 1."""
    return np.unpackbits(packed, axis=-1, count=int(np.prod(shape))).reshape(*packed.shape[:-1], *shape)
