"""What a tokenizer says about windows of a dataset, beside what is true about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wam.contracts import Batch, expected
from wam.data.features import ACTION, STATE
from wam.data.splits import split_episodes, task_of
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec
from wam.tokenizers.latent_action import LatentActionTokenizer

AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Readings:
    """N windows. frames (N, V, 2, H, W, 3) uint8 and there (V,) bool: which views. latents (N, tokens * A); codes (N, tokens,
    levels), None where continuous; camera (N, V, 4) or None.

    motion (N, 3): of the hand, and action (N, A): the mean over the gap; None where the dataset lacks them. task (N,) words,
    play (N,) bool, episode (N,) and frame (N,): where a window is from. names: of the axes of motion.
    """

    frames: np.ndarray
    there: np.ndarray
    latents: np.ndarray
    codes: np.ndarray | None
    camera: np.ndarray | None
    motion: np.ndarray | None
    action: np.ndarray | None
    task: np.ndarray
    play: np.ndarray
    episode: np.ndarray
    frame: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: np.ndarray) -> Readings:
        fields = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            shared = name in ("there", "names") or value is None
            fields[name] = value if shared else value[rows]
        return Readings(**fields)


def episodes_of(store: EpisodeStore, *, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """(train, held out), as the training run split them; all episodes are held out where the share is 1."""
    if held_out >= 1:
        return [], list(range(len(store)))
    return split_episodes(store, held_out_share=held_out, seed=seed)


def read(
    tokenizer: LatentActionTokenizer,
    store: EpisodeStore,
    episodes: list[int],
    *,
    limit: int,
    seed: int,
    axes: tuple[int, ...] = (0, 1, 2),
    moving: float = 0.0,
) -> Readings:
    """Up to `limit` windows of these episodes, drawn evenly by the seed, whose later frame is real.

    moving: leave out windows in which fewer than this share of the pixels change. Raises WamError where no window is left.
    """
    config = tokenizer.config
    spec = WindowSpec(history=1, future=(config.gap,), chunk=0, cameras=tokenizer.cameras, image_size=config.image_size)
    dataset = WindowDataset(store, spec, episodes=episodes, cache="memory")
    rows = np.array([i for i in range(len(dataset)) if _room(dataset, i) > config.gap], int)
    rows = np.random.default_rng(seed).permutation(rows)
    kept: list[int] = []
    frames = []
    for start in range(0, len(rows), 4 * AT_ONCE):
        chosen = rows[start : start + 4 * AT_ONCE]
        batch = dataset.batch(chosen)
        pictures = pair_of(batch)
        changed = (np.abs(pictures[:, :, 1].astype(np.int16) - pictures[:, :, 0]) > 25).any(-1).mean((1, 2, 3))
        fit = np.flatnonzero(changed >= moving)[: limit - len(kept)]
        kept += chosen[fit].tolist()
        frames.append(pictures[fit])
        if len(kept) >= limit:
            break
    if not kept:
        raise expected(
            f"windows of more than {config.gap} frames in {store.root}", got="none", do="choose episodes long enough"
        )
    stacked = np.concatenate(frames)
    there = np.array([camera in store.cameras for camera in tokenizer.cameras])
    latents, codes, camera = encoded(tokenizer, stacked, there)
    where = [dataset.episode_of(row) for row in kept]
    motion, action, names = _truth(store, where, config.gap, axes)
    return Readings(
        frames=stacked,
        there=there,
        latents=latents,
        codes=codes,
        camera=camera,
        motion=motion,
        action=action,
        task=np.array([task_of(episode) for episode, _ in where]),
        play=np.array([episode.play for episode, _ in where]),
        episode=np.array([episode.index for episode, _ in where]),
        frame=np.array([frame for _, frame in where]),
        names=names,
    )


def pair_of(batch: Batch) -> np.ndarray:
    """The present and the first frame to come, (B, V, 2, H, W, 3)."""
    assert batch.future is not None
    return torch.cat([batch.images[:, :, -1:], batch.future[:, :, :1]], dim=2).numpy()


@torch.no_grad()
def encoded(
    tokenizer: LatentActionTokenizer, frames: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Latents (N, tokens * A), codes (N, tokens, levels) and camera motion (N, V, 4) of pairs (N, V, 2, H, W, 3) uint8."""
    found = []
    for start in range(0, len(frames), AT_ONCE):
        part = torch.from_numpy(frames[start : start + AT_ONCE])
        found.append(tokenizer.encode(part, view_mask=mask_of(there, len(part))))
    latents = torch.cat([f.latents.flatten(1) for f in found]).numpy()
    codes = [f.codes for f in found if f.codes is not None]
    camera = [f.camera[:, :, 0] for f in found if f.camera is not None]
    return latents, torch.cat(codes).numpy() if codes else None, torch.cat(camera).numpy() if camera else None


def mask_of(there: np.ndarray, size: int) -> Tensor:
    return torch.from_numpy(there)[None].expand(size, -1)


def _room(dataset: WindowDataset, row: int) -> int:
    """Frames from a window's present to the end of its episode, the present counted."""
    episode, frame = dataset.episode_of(row)
    return episode.length - frame


def _truth(
    store: EpisodeStore, where: list, gap: int, axes: tuple[int, ...]
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """How far the hand moved and the mean action over the gap, and the names of the axes."""
    features = store.info.features
    motion = action = None
    names: tuple[str, ...] = ()
    if STATE in features and max(axes) < features[STATE].shape[0]:
        states = {episode.index: store.column(STATE, episode) for episode, _ in where}
        motion = np.stack([(states[e.index][t + gap] - states[e.index][t])[list(axes)] for e, t in where]).astype(float)
        own = features[STATE].names
        names = tuple(str(own[axis]) if own else str(axis) for axis in axes)
    if ACTION in features:
        actions = {episode.index: store.column(ACTION, episode) for episode, _ in where}
        action = np.stack([actions[e.index][t : t + gap].mean(axis=0) for e, t in where]).astype(float)
    return motion, action, names
