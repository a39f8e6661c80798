"""Occupancy of every frame of a dataset with depth and cameras: what its cameras saw, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wam.contracts import expected
from wam.data.episodes import Episode
from wam.data.labels import OCCUPANCY, Labels, pack_voxels
from wam.data.poses import window_cameras
from wam.data.store import EpisodeStore
from wam.geometry.grid import OCCUPIED, UNKNOWN, VoxelConfig
from wam.geometry.voxels import fuse_depth


def label_from_depth(
    root: Path | str, grid: VoxelConfig, *, progress: Callable[[int, int], None] | None = None
) -> Labels:
    """Fill `root`/labels/occupancy from recorded depth: occupied, free, or unknown where no camera looked; episodes that
    have labels are passed over.

    All cameras that have depth are fused, as they stand in one world frame. progress: called with (episodes done, in all).
    Raises WamError on a dataset without depth, or without the cameras' poses, or labels made otherwise before.
    """
    grid.validate()
    store = EpisodeStore(root)
    cameras = [camera for camera in store.cameras if camera in store.info.depth_keys]
    if not cameras:
        raise expected(
            "a dataset with depth (observation.images.CAMERA_depth)",
            got=f"none in {root}",
            do="collect with depth=true, or label a simulated dataset without --from depth",
        )
    labels = Labels(root, OCCUPANCY, about=about_depth(grid, cameras))
    left, report = labels.missing(store), progress or (lambda *_: None)
    done = len(store) - len(left)
    report(done, len(store))
    for episode in left:
        grids = fused(store, episode, cameras, grid)
        labels.write(episode, {"filled": pack_voxels(grids == OCCUPIED), "known": pack_voxels(grids != UNKNOWN)})
        report(done := done + 1, len(store))
    return labels


def about_depth(grid: VoxelConfig, cameras: list[str]) -> dict[str, Any]:
    return {"grid": asdict(grid), "from": "depth", "cameras": cameras}


def fused(store: EpisodeStore, episode: Episode, cameras: list[str], grid: VoxelConfig) -> np.ndarray:
    """(T, X, Y, Z) uint8 of an episode: FREE, OCCUPIED or UNKNOWN, from the depth of all these cameras together."""
    depth = np.stack([store.depth(camera, episode) for camera in cameras], axis=1)
    poses = window_cameras(store, cameras, [episode], depth.shape[-2:])
    intrinsics, extrinsics = (torch.from_numpy(np.broadcast_to(m, (len(depth), *m.shape[1:])).copy()) for m in poses)
    return np.stack(
        [
            fuse_depth(torch.from_numpy(frame), intrinsics[at], extrinsics[at], grid).numpy()
            for at, frame in enumerate(depth)
        ]
    )
