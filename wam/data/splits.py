"""Held-out episodes, chosen task by task, so that every task is on both sides."""

from __future__ import annotations

import numpy as np

from wam.contracts import expected
from wam.data.episodes import Episode
from wam.data.store import EpisodeStore


def task_of(episode: Episode) -> str:
    """What tells tasks apart: the episode's environment if recorded, else its sentence; play counts apart."""
    task = str(episode.extra.get("environment") or episode.task)
    return f"{task} (play)" if episode.play else task


def split_episodes(store: EpisodeStore, *, held_out_share: float, seed: int) -> tuple[list[int], list[int]]:
    """(train, held_out): places in `store.episodes`, ascending. Every task with two or more episodes is on both sides
    (if the share is not 0); the episodes of tasks seen once are split together. Adding a task changes no other's split, and
    of tasks with as many episodes the same numbers are held out: those of one number may have started alike.
    """
    if not 0 <= held_out_share < 1:
        raise expected("held_out_share from 0 to below 1", got=held_out_share, do="give a share such as 0.1")
    groups: dict[str, list[int]] = {}
    for place, episode in enumerate(store.episodes):
        groups.setdefault(task_of(episode), []).append(place)
    single = [group.pop() for group in groups.values() if len(group) == 1]
    held_out: list[int] = []
    for places in [*groups.values(), single]:
        if len(places) < 2 or not held_out_share:
            continue
        generator = np.random.default_rng(seed)
        count = min(max(1, round(held_out_share * len(places))), len(places) - 1)
        held_out += generator.choice(places, size=count, replace=False).tolist()
    chosen = set(held_out)
    return [place for place in range(len(store)) if place not in chosen], sorted(chosen)
