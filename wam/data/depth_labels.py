"""Occupancy of every frame of a dataset with depth and cameras: what its cameras saw, and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from wam.contracts import expected
from wam.data.episodes import Episode
from wam.data.labels import OCCUPANCY, Labels, about_voxels, pack_colours, pack_voxels
from wam.data.poses import window_cameras
from wam.data.store import EpisodeStore
from wam.data.windows import resize
from wam.geometry.grid import OCCUPIED, UNKNOWN, VoxelConfig
from wam.geometry.voxels import fuse_colours, fuse_depth


def label_from_depth(
    root: Path | str,
    grid: VoxelConfig,
    *,
    colour: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Labels:
    """Fill `root`/labels/occupancy from recorded depth: occupied, free, or unknown where no camera looked; episodes that
    have labels are passed over.

    All cameras that have depth are fused, as they stand in one world frame. colour: also the mean colour of the pixels that
    met each occupied voxel. progress: called with (episodes done, in all).
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
    labels = Labels(root, OCCUPANCY, about=about_voxels(grid, {"from": "depth", "cameras": cameras}, colour=colour))
    left, report = labels.missing(store), progress or (lambda *_: None)
    done = len(store) - len(left)
    report(done, len(store))
    for episode in left:
        grids, painted = fused(store, episode, cameras, grid, colour=colour)
        arrays = {"filled": pack_voxels(grids == OCCUPIED), "known": pack_voxels(grids != UNKNOWN)}
        labels.write(episode, arrays if painted is None else {**arrays, **pack_colours(painted)})
        report(done := done + 1, len(store))
    return labels


def fused(
    store: EpisodeStore, episode: Episode, cameras: list[str], grid: VoxelConfig, *, colour: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """(T, X, Y, Z) uint8 of an episode: FREE, OCCUPIED or UNKNOWN, from the depth of all these cameras together; and their
    colours (T, X, Y, Z, 4) uint8 if asked for, from the same pixels, pictures brought to the size of the depth."""
    depth = np.stack([store.depth(camera, episode) for camera in cameras], axis=1)
    poses = window_cameras(store, cameras, [episode], depth.shape[-2:])
    intrinsics, extrinsics = (torch.from_numpy(np.broadcast_to(m, (len(depth), *m.shape[1:])).copy()) for m in poses)
    seen = [(torch.from_numpy(frame), intrinsics[at], extrinsics[at]) for at, frame in enumerate(depth)]
    grids = np.stack([fuse_depth(*one, grid).numpy() for one in seen])
    if not colour:
        return grids, None
    pictures = np.stack([resize(store.frames(camera, episode), *depth.shape[-2:]) for camera in cameras], axis=1)
    painted = [fuse_colours(torch.from_numpy(rgb), *one, grid).numpy() for rgb, one in zip(pictures, seen, strict=True)]
    return grids, np.stack(painted)
