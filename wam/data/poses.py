"""Where a dataset's cameras stand: fixed ones in info.json, moving ones as columns.

    info.json       wam.cameras.NAME.{intrinsics (3, 3), extrinsics (4, 4)}
    columns         camera.NAME.intrinsics (3, 3) and camera.NAME.extrinsics (4, 4), for every frame; they come first

Pixels are those of the recorded video; extrinsics are camera-to-world in OpenCV axes and metres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wam.contracts import expected
from wam.data.episodes import Episode
from wam.data.store import EpisodeStore
from wam.geometry.cameras import check_cameras, project, resized


@dataclass(frozen=True, kw_only=True)
class CameraPose:
    """intrinsics (3, 3) in pixels of an image of `size` (H, W); extrinsics (4, 4) camera-to-world, OpenCV axes."""

    intrinsics: np.ndarray
    extrinsics: np.ndarray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        shapes = (np.shape(self.intrinsics), np.shape(self.extrinsics))
        if shapes != ((3, 3), (4, 4)):
            raise expected("intrinsics (3, 3) and extrinsics (4, 4)", got=shapes, do="give camera-to-world matrices")

    def project(self, points: np.ndarray) -> np.ndarray:
        """points (N, 3) in the world -> (N, 2) as fractions of width and height."""
        arrays = (points, self.intrinsics, self.extrinsics)
        pixels, _ = project(*(torch.from_numpy(np.asarray(array, float)) for array in arrays))
        return pixels.numpy() / np.array(self.size[::-1])


def camera_poses(store: EpisodeStore) -> dict[str, CameraPose]:
    """Of the cameras that do not move and whose pose is known."""
    recorded: Mapping[str, Mapping] = store.info.wam.get("cameras") or {}
    return {
        camera: CameraPose(
            intrinsics=np.array(pose["intrinsics"]), extrinsics=np.array(pose["extrinsics"]), size=_size(store, camera)
        )
        for camera, pose in recorded.items()
        if camera in store.cameras and "intrinsics" in pose and "extrinsics" in pose
    }


def window_cameras(
    store: EpisodeStore, cameras: Sequence[str], episodes: Sequence[Episode], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (N, V, 3, 3), in pixels of images of `size` (H, W), and extrinsics (N, V, 4, 4), float32, of every frame
    of these episodes in their order; N is 1 where no camera moves. A camera that the dataset lacks stands at the origin.

    Raises WamError for a camera whose pose is not known, or whose matrices are none.
    """
    fixed = camera_poses(store)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for camera in cameras:
        columns = [f"camera.{camera}.{kind}" for kind in ("intrinsics", "extrinsics")]
        if camera not in store.cameras:
            found.append((np.eye(3)[None], np.eye(4)[None]))
            continue
        if all(column in store.info.features for column in columns):
            values = [np.concatenate([store.column(column, e) for e in episodes]) for column in columns]
            pose = (values[0].reshape(-1, 3, 3), values[1].reshape(-1, 4, 4))
        elif camera in fixed:
            pose = (fixed[camera].intrinsics[None], fixed[camera].extrinsics[None])
        else:
            raise expected(
                f"the pose of camera {camera!r} in {store.root}",
                got="none",
                do=f"write wam.cameras.{camera} to meta/info.json, or columns {' and '.join(columns)}",
            )
        intrinsics, extrinsics = (torch.from_numpy(np.asarray(matrix, np.float64)) for matrix in pose)
        check_cameras(intrinsics, extrinsics)
        found.append((resized(intrinsics, before=_size(store, camera), after=size).numpy(), extrinsics.numpy()))
    frames = max(len(matrix) for pose in found for matrix in pose)
    stacked = [
        np.stack([np.broadcast_to(pose[kind], (frames, *pose[kind].shape[1:])) for pose in found], axis=1)
        for kind in (0, 1)
    ]
    return stacked[0].astype(np.float32), stacked[1].astype(np.float32)


def _size(store: EpisodeStore, camera: str) -> tuple[int, int]:
    height, width = store.info.feature(store.info.camera_key(camera)).shape[:2]
    return height, width
