"""Windows of episodes: the observed past, frames to come and a chunk of actions, around every frame as the present."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from wam.contracts import Batch, expected
from wam.data.episodes import Episode
from wam.data.features import ACTION, STATE
from wam.data.labels import VoxelLabels
from wam.data.latents import LatentFiles, Latents
from wam.data.poses import window_cameras
from wam.data.store import EpisodeStore

Instruction = str | Mapping[str, str] | Callable[[Episode], str] | None
MEMORY_SHARE = 0.8  # of the memory that is free, what a cache may take


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """What a window holds.

    history: T observed frames, `history_stride` dataset frames apart, the last being the present; before an episode's
    start its first frame is repeated.
    future: offsets of the frames to come from the present, in dataset frames; none: no future.
    chunk: K actions from the present on; 0: no actions. Past an episode's end the last frame and action are repeated
    and their masks are False.
    cameras: short names, one view each (default: all of the dataset). image_size: frames are resized to
    (image_size, image_size) without keeping their aspect; None keeps them as they are.
    state, action: the columns to read; a dataset without them has no such stream. occupancy: give the labels of that name
    at the present and at each frame to come, colour: with the colours of what is filled; geometry: give the cameras' matrices
    at the present; depth: give that of the observed frames, read from video for each window, at the resolution of the images.
    A dataset without them raises WamError. pictures: without them the frames have no pixels, and no video is read, for a
    model that is given their latents.
    """

    history: int = 1
    history_stride: int = 1
    future: tuple[int, ...] = (4, 8)
    chunk: int = 8
    cameras: tuple[str, ...] | None = None
    image_size: int | None = 64
    state: str = STATE
    action: str = ACTION
    occupancy: bool = False
    colour: bool = False
    geometry: bool = False
    depth: bool = False
    pictures: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "future", tuple(self.future))
        object.__setattr__(self, "cameras", None if self.cameras is None else tuple(self.cameras))
        if min(self.history, self.history_stride) < 1 or self.chunk < 0:
            raise expected(
                "history >= 1, history_stride >= 1 and chunk >= 0",
                got=f"{self.history}, {self.history_stride} and {self.chunk}",
                do="correct the spec",
            )
        if any(offset < 1 for offset in self.future):
            raise expected("future offsets of 1 and more", got=self.future, do="count frames from the present on")
        if self.cameras is not None and not self.cameras:
            raise expected("at least one camera", got="none", do="name one, or leave cameras out to take all")


class WindowDataset:
    """Every frame of the chosen episodes is the present of one window; `window(i)` and `batch(indices)` give them.

    cache: "memory" decodes each episode once into a uint8 array, so that a batch is one gather; "none" reads every
    window's frames from video. instruction_override: one sentence for all, sentence -> sentence, or a function of the
    episode. embodiment: index of the robot, if a mixture holds several. progress: called with (done, total) episodes.
    A camera of the spec that the dataset lacks gives black frames and view_mask False. sentences: of every window. known_states
    (S,): which numbers of the state mean something, None: all; a mixture gives them as `state_mask`. latents: files from which
    every window is given those of its frames; an episode that has none there is an error.
    """

    def __init__(
        self,
        store: EpisodeStore,
        spec: WindowSpec,
        *,
        episodes: Iterable[int] | None = None,
        cache: Literal["memory", "none"] = "memory",
        instruction_override: Instruction = None,
        embodiment: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        latents: LatentFiles | None = None,
    ) -> None:
        if cache not in ("memory", "none"):
            raise expected("cache memory or none", got=repr(cache), do="name one of the two")
        self.store, self.spec, self.cache, self.embodiment = store, spec, cache, embodiment
        chosen = range(len(store)) if episodes is None else episodes
        self.episodes = [store.episode(int(episode)) for episode in chosen]
        if not self.episodes:
            raise expected("at least one episode", got="none", do="choose some episodes, or collect more")
        self.cameras = spec.cameras or store.cameras
        self._present = np.array([camera in store.cameras for camera in self.cameras])
        if not self._present.any():
            raise expected(f"a camera among {list(store.cameras)}", got=list(self.cameras), do="name one that exists")
        lengths = np.array([episode.length for episode in self.episodes])
        self._owner = np.repeat(np.arange(len(lengths)), lengths)  # row -> place of its episode
        self._first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        self._last = self._first + np.repeat(lengths, lengths) - 1
        self._state = self._column(spec.state)
        self._action = self._column(spec.action) if spec.chunk else None
        self._told: np.ndarray | None = None
        self.known_states: np.ndarray | None = None
        labelled = spec.occupancy or spec.colour
        self._occupancy = VoxelLabels(store.root, self.episodes, colour=spec.colour) if labelled else None
        self._poses = window_cameras(store, self.cameras, self.episodes, self.image_shape) if spec.geometry else None
        self._play = np.array([episode.play for episode in self.episodes])
        self.sentences = self._sentences(instruction_override)
        self._latents: Latents | None = None
        if latents is not None:
            clips = [latents.clip(store, episode) for episode in self.episodes]
            self._latents = latents.open(clips, [episode.length for episode in self.episodes])
        self._frames = self._decode_all(progress) if cache == "memory" and spec.pictures else None

    def __len__(self) -> int:
        return len(self._owner)

    @property
    def action_dim(self) -> int | None:
        return None if self._action is None else self._action.shape[-1]

    @property
    def state_dim(self) -> int | None:
        return None if self._state is None else self._state.shape[-1]

    @property
    def owner(self) -> np.ndarray:
        """(N,) of every window: the place of its episode among `episodes`."""
        return self._owner

    @property
    def left(self) -> np.ndarray:
        """(N,) of every window: frames to come before its episode ends."""
        return self._last - np.arange(len(self))

    def states(self) -> np.ndarray:
        """(N, S) of every window."""
        if self._state is None:
            raise expected("a dataset with states", got=f"none in {self.store.root}", do="use another")
        return self._state

    def actions_ahead(self, count: int) -> np.ndarray:
        """(N, count, A) of every window: the actions from it on; past an episode's end its last."""
        if self._action is None:
            raise expected("a dataset with actions", got=f"none in {self.store.root}", do="use another")
        return self._action[np.minimum(np.arange(len(self))[:, None] + np.arange(count), self._last[:, None])]

    def give_actions(self, actions: np.ndarray, *, known: np.ndarray) -> None:
        """Of a dataset that has none: (N, A), one for each window's frame; known (N,) bool, elsewhere the mask is False."""
        if self._action is not None or len(actions) != len(self):
            raise expected(f"{len(self)} actions for a dataset without", got=len(actions), do="use one that has none")
        self._action, self._told = actions.astype(np.float32), known

    def give_states(self, states: np.ndarray, *, known: np.ndarray) -> None:
        """Of a dataset that has none: (N, S); known (S,) bool, which numbers of them mean something."""
        if self._state is not None or len(states) != len(self):
            raise expected(f"{len(self)} states for a dataset without", got=len(states), do="use one that has none")
        self._state, self.known_states = states.astype(np.float32), known

    @property
    def has_every_view(self) -> bool:
        return bool(self._present.all())

    @cached_property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the frames it gives."""
        if self.spec.image_size is not None:
            return self.spec.image_size, self.spec.image_size
        return self.store.frames(self._existing[0], self.episodes[0], [0]).shape[1:3]

    def window(self, index: int) -> dict[str, Any]:
        """One window: the fields of a Batch without B, as arrays, and its instruction."""
        fields = self.arrays([index])
        return {name: value[0] for name, value in fields.items()}

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Windows, stacked."""
        fields = self.arrays(indices)
        sentences = fields.pop("instruction")
        return Batch(**{name: torch.from_numpy(value) for name, value in fields.items()}, instruction=tuple(sentences))

    def episode_of(self, index: int) -> tuple[Episode, int]:
        """The episode and frame number that are the present of a window."""
        return self.episodes[self._owner[index]], int(index - self._first[index])

    def arrays(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """The fields of a Batch as numpy arrays."""
        rows = np.asarray(indices, np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise expected(f"windows from 0 to {len(self) - 1}", got=f"{rows.min()} to {rows.max()}", do="stay within")
        first, last = self._first[rows, None], self._last[rows, None]
        past = np.maximum(rows[:, None] + self.spec.history_stride * np.arange(1 - self.spec.history, 1), first)
        ahead = rows[:, None] + np.array(self.spec.future, np.int64)
        frames = self._gather(np.concatenate([past, np.minimum(ahead, last)], axis=1))
        found: dict[str, Any] = {"images": frames[:, :, : self.spec.history]}
        if self.spec.future:
            found |= {"future": frames[:, :, self.spec.history :], "future_mask": ahead <= last}
        if self._latents is not None:
            found |= self._read_latents(rows, past, np.minimum(ahead, last))
        if not self._present.all():
            found["view_mask"] = np.repeat(self._present[None], len(rows), axis=0)
        if self._state is not None:
            found["state"] = self._state[rows]
        if self._action is not None:
            steps = rows[:, None] + np.arange(self.spec.chunk)
            found |= {"action": self._action[np.minimum(steps, last)], "action_mask": steps <= last}
            if self._told is not None:
                found["action_mask"] &= self._told[np.minimum(steps, last)]
        if self._occupancy is not None:
            at = np.concatenate([rows[:, None], np.minimum(ahead, last)], axis=1)
            found["occupancy"] = self._occupancy.grids(at)
            if self.spec.colour:
                found["occupancy_colour"] = self._occupancy.colours(at)
        if self._poses is not None:
            at = rows if len(self._poses[0]) > 1 else np.zeros_like(rows)
            found["intrinsics"], found["extrinsics"] = (matrices[at] for matrices in self._poses)
        if self.spec.depth:
            found["depth"] = self._depth(past)
        if self.embodiment is not None:
            found["embodiment"] = np.full(len(rows), self.embodiment)
        found["play"] = self._play[self._owner[rows]]
        found["instruction"] = [self.sentences[row] for row in rows]
        return found

    @property
    def _existing(self) -> list[str]:
        return [camera for camera, there in zip(self.cameras, self._present, strict=True) if there]

    def _column(self, name: str) -> np.ndarray | None:
        if name not in self.store.info.features:
            return None
        values = np.concatenate([self.store.column(name, episode) for episode in self.episodes])
        return values.reshape(len(values), -1).astype(np.float32)

    def _sentences(self, override: Instruction) -> list[str]:
        found: list[str] = []
        for episode in self.episodes:
            own = [episode.task] * episode.length
            if len(episode.tasks) > 1:  # the sentence changes within the episode
                own = [self.store.tasks[index] for index in self.store.column("task_index", episode)]
            if isinstance(override, str):
                own = [override] * episode.length
            elif isinstance(override, Mapping):
                own = [override.get(sentence, sentence) for sentence in own]
            elif override is not None:
                own = [override(episode)] * episode.length
            found += own
        return found

    def _read_latents(self, rows: np.ndarray, past: np.ndarray, ahead: np.ndarray) -> dict[str, np.ndarray]:
        """rows (B,), past (B, T), ahead (B, T) -> latents (B, V, T, h, w, c) and those of the future."""
        assert self._latents is not None
        first, seen, foreseen = self._first[rows], [], []
        for place, row in enumerate(rows):
            future = rows[place : place + 1] if self._latents.key.future else ahead[place]
            found = self._latents.read(self._owner[row], past[place] - first[place], future - first[place])
            seen.append(found[0])
            foreseen.append(found[1])
        return {"latents": np.stack(seen)} | ({"future_latents": np.stack(foreseen)} if self.spec.future else {})

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """rows (B, T) -> (B, V, T, H, W, 3)."""
        if not self.spec.pictures:
            return np.zeros((len(rows), len(self.cameras), rows.shape[1], 0, 0, 3), np.uint8)
        if self._frames is not None:
            views = np.arange(len(self.cameras))[:, None] * len(self)
            return np.take(self._frames, views + rows[:, None], axis=0)
        height, width = self.image_shape
        found = np.zeros((len(rows), len(self.cameras), rows.shape[1], height, width, 3), np.uint8)
        for place in np.argsort(rows[:, 0], kind="stable"):  # by episode, so that a file stays open
            episode, first = self.episodes[self._owner[rows[place, 0]]], self._first[rows[place, 0]]
            for view in np.flatnonzero(self._present):
                frames = self.store.frames(self.cameras[view], episode, rows[place] - first)
                found[place, view] = resize(frames, height, width)
        return found

    def _depth(self, rows: np.ndarray) -> np.ndarray:
        """rows (B, T) -> (B, V, T, H, W) metres; 0 where a camera is missing."""
        height, width = self.image_shape
        found = np.zeros((len(rows), len(self.cameras), rows.shape[1], height, width), np.float32)
        for place in np.argsort(rows[:, 0], kind="stable"):
            episode, first = self.episodes[self._owner[rows[place, 0]]], self._first[rows[place, 0]]
            for view in np.flatnonzero(self._present):
                metres = self.store.depth(self.cameras[view], episode, rows[place] - first)
                found[place, view] = nearest(metres, height, width)
        return found

    def _decode_all(self, progress: Callable[[int, int], None] | None) -> np.ndarray:
        """Every frame of every view, (V * N, H, W, 3)."""
        height, width = self.image_shape
        shape = (len(self.cameras), len(self), height, width, 3)
        _check_memory(int(np.prod(shape)))
        frames = np.zeros(shape, np.uint8)
        for place, episode in enumerate(self.episodes):
            row = int(self._first[np.searchsorted(self._owner, place)])
            for view in np.flatnonzero(self._present):
                decoded = self.store.frames(self.cameras[view], episode)
                frames[view, row : row + episode.length] = resize(decoded, height, width)
            if progress is not None:
                progress(place + 1, len(self.episodes))
        return rearrange(frames, "v n h w c -> (v n) h w c")


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T, height, width, 3) uint8, averaging over what a pixel covers."""
    if frames.shape[1:3] == (height, width):
        return frames
    shrinks = frames.shape[1] >= height and frames.shape[2] >= width
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), how)) for frame in frames])


def nearest(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """(T, H, W) -> (T, height, width): the pixel in the middle of each new one, since a mean of two surfaces lies on none."""
    rows = ((np.arange(height) + 0.5) * depth.shape[1] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * depth.shape[2] / width).astype(int)
    return depth[:, rows[:, None], columns]


def _check_memory(size: int) -> None:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > MEMORY_SHARE * free:
        raise expected(
            f"a cache of at most {MEMORY_SHARE * free / 2**30:.1f} GiB",
            got=f"{size / 2**30:.1f} GiB of frames",
            do="use cache='none', fewer episodes or a smaller image_size",
        )
