"""The windows a run trains on: demonstrations and play of every dataset of the config, and a few held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wam.contracts import Batch
from wam.data.splits import split_episodes
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec
from wam.training.config import DataConfig, DataPart, TrainConfig

CHECK_WINDOWS = 48


def window_spec(config: TrainConfig) -> WindowSpec:
    m = config.model
    return WindowSpec(
        history=m.history,
        future=tuple(m.future),
        chunk=m.chunk,
        cameras=tuple(config.data.cameras),
        image_size=m.image_size,
    )


def open_part(
    part: DataPart, data: DataConfig, spec: WindowSpec
) -> tuple[list[tuple[WindowDataset, float, str]], Batch | None]:
    """Training windows of one dataset, demonstrations and play apart, and a few held-out ones (play if there is any)."""
    store = EpisodeStore(part.root)
    name = part.name or Path(part.root).name
    train, held_out = split_episodes(store, held_out_share=data.held_out, seed=data.split_seed)
    random = [i for i in train if store.episodes[i].play]
    expert = [i for i in train if not store.episodes[i].play]
    share = part.play_share
    if share is None:
        frames = [sum(store.episodes[i].length for i in kind) for kind in (expert, random)]
        share = frames[1] / max(1, sum(frames))
    weights = {"": (expert, 1 - share), "-play": (random, share)}
    parts = [
        (WindowDataset(store, spec, episodes=episodes, cache=data.cache), part.weight * weight, name + ending)
        for ending, (episodes, weight) in weights.items()
        if episodes and weight > 0
    ]
    aside = [i for i in held_out if store.episodes[i].play] or held_out
    if not aside:
        return parts, None
    windows = WindowDataset(store, spec, episodes=aside[:8], cache="memory")
    chosen = np.unique(np.linspace(0, len(windows) - 1, CHECK_WINDOWS).astype(int))
    return parts, windows.batch(chosen)
