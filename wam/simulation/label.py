"""Occupancy of every frame of a simulated dataset, from the recorded states: exact, and without rendering."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wam.contracts import expected
from wam.data.labels import OCCUPANCY, Labels, about_voxels, pack_colours, pack_voxels
from wam.data.store import EpisodeStore
from wam.geometry.grid import VoxelConfig
from wam.geometry.surface import surface_only
from wam.simulation.environment import Environment, make_environment
from wam.simulation.workers import worker_pool

STATE = "sim.state"


def label_occupancy(
    root: Path | str,
    grid: VoxelConfig,
    *,
    colour: bool = False,
    processes: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Labels:
    """Fill `root`/labels/occupancy with the voxels that geoms fill at each frame; episodes that have them are passed over.

    colour: also the colours of the surface of what is filled. processes: 0 for one per processor. progress: called with
    (episodes done, in all).
    Raises WamError on a dataset without recorded simulator states, labels made otherwise before, or a dead worker.
    """
    grid.validate()
    if processes < 0:
        raise expected("processes of at least 0", got=processes, do="leave it out for one per processor")
    store = EpisodeStore(root)
    if STATE not in store.info.features:
        raise expected(
            f"a dataset with recorded simulator states ({STATE})",
            got=f"{sorted(store.info.features)} in {root}",
            do="collect one with `wam collect`",
        )
    about = about_voxels(grid, {"from": "geoms"}, colour=colour)
    labels = Labels(root, OCCUPANCY, about=about)
    left = [episode.index for episode in labels.missing(store)]
    report, done = progress or (lambda *_: None), len(store) - len(left)
    report(done, len(store))
    processes = min(processes or os.cpu_count() or 1, max(1, len(left)))
    if processes == 1:
        labeller = _Labeller(Path(root), grid, colour)
        for episode in left:
            labeller.label(episode)
            report(done := done + 1, len(store))
        return labels
    with worker_pool(processes, _begin, Path(root), grid, colour) as pool:
        for _ in pool.map(_label, left):
            report(done := done + 1, len(store))
    return labels


class _Labeller:
    """Keeps the environments it has made."""

    def __init__(self, root: Path, grid: VoxelConfig, colour: bool) -> None:
        self.store, self.grid, self.colour = EpisodeStore(root), grid, colour
        self.labels = Labels(root, OCCUPANCY)
        self._environments: dict[str, Environment] = {}

    def label(self, index: int) -> None:
        episode = self.store.episode(index)
        name = str(episode.extra.get("environment", ""))
        if name not in self._environments:
            self._environments[name] = make_environment(name, image_size=2)
        states = self.store.column(STATE, episode).astype(np.float64)
        environment = self._environments[name]
        if not self.colour:
            self.labels.write(
                episode, {"filled": pack_voxels(at_each(environment, states, environment.occupied, self.grid))}
            )
            return
        painted = at_each(environment, states, environment.painted, self.grid)
        colours = pack_colours(surface_only(painted))
        self.labels.write(episode, {"filled": pack_voxels(painted[..., 3] > 0), **colours})


def at_each(
    environment: Environment,
    states: Sequence[np.ndarray] | np.ndarray,
    look: Callable[[VoxelConfig], np.ndarray],
    grid: VoxelConfig,
) -> np.ndarray:
    """(T, X, Y, Z, ...): what a look of the environment's gives at each state (T, ...)."""
    found = []
    for state in states:
        environment.set_state(state)
        found.append(look(grid))
    return np.stack(found)


_labeller: _Labeller | None = None  # of a worker process


def _begin(root: Path, grid: VoxelConfig, colour: bool) -> None:
    global _labeller
    _labeller = _Labeller(root, grid, colour)


def _label(index: int) -> None:
    assert _labeller is not None
    _labeller.label(index)
