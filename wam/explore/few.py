"""A few episodes to start from where no dataset is at hand: collected in the simulator in seconds.

Their starts are drawn from a seed of their own, so a model trained on what `configs/data` collects has seen none of them.
"""

from __future__ import annotations

import json
from pathlib import Path

from wam.contracts import expected
from wam.data.features import INFO_PATH
from wam.data.labels import OCCUPANCY, Labels, has_labels
from wam.data.store import EpisodeStore
from wam.geometry.grid import VoxelConfig
from wam.progress import Progress
from wam.simulation.collect import collect
from wam.simulation.config import CollectConfig
from wam.simulation.label import label_occupancy

FEW = CollectConfig(episodes=2, play_episodes=4, play_steps=56, cameras=("side", "top"), seed=7)
"""The demo's four tasks, demonstrations and random play. Every dataset of configs/ has the seed 0."""


def few_episodes(root: str | Path, *, config: CollectConfig = FEW, grid: VoxelConfig | None = None) -> Path:
    """The dataset at `root`: the one that is there, else collected by `config`, or gone on with where that was interrupted.
    grid: it also has labels of these voxels. Returns `root`.

    Raises WamError where the simulator is not installed, or if the labels there are of another grid.
    """
    root = Path(root)
    if not root.is_dir() or _unfinished(root, config):
        jobs = len(config.jobs())
        with Progress("episodes", jobs) as bar:
            collect(config, root, resume=(root / "meta").exists(), progress=lambda done, _: bar.update(done))
    if grid is None:
        return root
    if not has_labels(root, OCCUPANCY) or Labels(root, OCCUPANCY).missing(EpisodeStore(root)):
        with Progress("labels", len(EpisodeStore(root))) as bar:
            label_occupancy(root, grid, progress=lambda done, _: bar.update(done))
    there = VoxelConfig(**Labels(root, OCCUPANCY).about["grid"])
    if there != grid:
        raise expected(
            f"labels of the grid {grid} in {root}", got=there, do="name another folder, or delete its labels/"
        )
    return root


def _unfinished(root: Path, config: CollectConfig) -> bool:
    """Whether this very collection was begun there and has episodes to go; another dataset stays as it is."""
    path = root / INFO_PATH
    if not path.is_file():
        return not any(root.iterdir())
    info = json.loads(path.read_text())
    begun = info.get("wam", {}).get("collection")
    return begun == config.fingerprint() and info["total_episodes"] < len(config.jobs())
