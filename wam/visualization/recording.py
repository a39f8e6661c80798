"""Recordings for the rerun viewer (.rrd): frames, actions and voxels, what came above what was imagined, over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import expected
from wam.files import TEMPORARY
from wam.geometry.grid import VoxelConfig
from wam.visualization.voxels import voxel_colours

TIMELINE = "ahead"
"""Seconds from the present."""
APPLICATION = "wam"


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One course of things. frames (V, T, H, W, 3) uint8; actions (L, A) or None; filled (1 + T, X, Y, Z) bool or None;
    colours (1 + T, X, Y, Z, 3 or 4) uint8 of what is filled, or None."""

    name: str
    frames: np.ndarray
    actions: np.ndarray | None = None
    filled: np.ndarray | None = None
    colours: np.ndarray | None = None

    @property
    def entity(self) -> str:
        """Its name as part of a path of rerun's."""
        return "".join(c if c.isalnum() else "_" for c in self.name.replace("+", "plus ").replace("−", "minus "))


def write_recording(
    path: Path,
    *,
    title: str,
    present: np.ndarray,
    cameras: Sequence[str],
    seconds: Sequence[float],
    lanes: Sequence[Lane],
    action_names: Sequence[str] = (),
    rate_hz: float = 1.0,
    grid: VoxelConfig | None = None,
    intrinsics: np.ndarray | None = None,
    extrinsics: np.ndarray | None = None,
) -> None:
    """Write the file; every lane becomes a row of the viewer. present (V, H, W, 3); seconds (T,); intrinsics (V, 3, 3) and
    extrinsics (V, 4, 4) put the cameras' pictures beside the voxels.

    Raises WamError where rerun is not installed.
    """
    try:
        import rerun as rr
    except ModuleNotFoundError as error:
        raise expected(
            "the package rerun-sdk to write a .rrd file", got="none", do="pip install 'wam[viz]', or save .mp4 or .png"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    with rr.RecordingStream(APPLICATION) as stream:
        stream.save(temporary, default_blueprint=_layout(lanes, cameras))
        stream.log("about", rr.TextDocument(title), static=True)
        for lane in lanes:
            _log_lane(rr, stream, lane, present, cameras, seconds, grid)
            if lane.filled is not None and intrinsics is not None and extrinsics is not None:
                _log_cameras(rr, stream, lane, cameras, present.shape[1:3], intrinsics, extrinsics)
            if lane.actions is not None:
                for step, action in enumerate(lane.actions):
                    stream.set_time(TIMELINE, duration=step / rate_hz)
                    for name, value in zip(action_names, action, strict=True):
                        stream.log(f"{lane.entity}/action/{name}", rr.Scalars(float(value)))
    temporary.replace(path)


def _log_lane(
    rr: Any,
    stream: Any,
    lane: Lane,
    present: np.ndarray,
    cameras: Sequence[str],
    seconds: Sequence[float],
    grid: VoxelConfig | None,
) -> None:
    for moment, second in enumerate((0.0, *seconds)):
        stream.set_time(TIMELINE, duration=second)
        for view, camera in enumerate(cameras):
            frame = present[view] if moment == 0 else lane.frames[view, moment - 1]
            stream.log(f"{lane.entity}/{camera}", rr.Image(frame))
        if lane.filled is not None and grid is not None:
            colours = None if lane.colours is None else lane.colours[moment]
            stream.log(f"{lane.entity}/world/voxels", _boxes(rr, lane.filled[moment], colours, grid))


def _boxes(rr: Any, filled: np.ndarray, colours: np.ndarray | None, grid: VoxelConfig) -> Any:
    """Voxels as solid cubes, coloured as in every picture of them."""
    places = np.argwhere(filled)
    centres = np.asarray(grid.origin) + grid.side * (places + 0.5)
    return rr.Boxes3D(
        centers=centres,
        half_sizes=np.full((len(places), 3), grid.side / 2),
        colors=voxel_colours(places, filled.shape, colours).astype(np.uint8),
        fill_mode="solid",
    )


def _log_cameras(
    rr: Any,
    stream: Any,
    lane: Lane,
    cameras: Sequence[str],
    size: tuple[int, ...],
    intrinsics: np.ndarray,
    extrinsics: np.ndarray,
) -> None:
    """Where the cameras stand among the voxels."""
    for view, camera in enumerate(cameras):
        place = f"{lane.entity}/world/{camera}"
        pose = rr.Transform3D(translation=extrinsics[view][:3, 3], mat3x3=extrinsics[view][:3, :3])
        stream.log(place, pose, static=True)
        lens = rr.Pinhole(image_from_camera=intrinsics[view], resolution=[size[1], size[0]], image_plane_distance=0.1)
        stream.log(place, lens, static=True)


def _layout(lanes: Sequence[Lane], cameras: Sequence[str]) -> Any:
    """A row for each lane: its cameras, its voxels, its actions."""
    import rerun.blueprint as rrb

    rows = []
    for lane in lanes:
        views: list[Any] = [
            rrb.Spatial2DView(origin=f"{lane.entity}/{camera}", name=f"{lane.name}, {camera}") for camera in cameras
        ]
        if lane.filled is not None:
            views.append(rrb.Spatial3DView(origin=f"{lane.entity}/world", name=f"{lane.name}, voxels"))
        if lane.actions is not None:
            views.append(rrb.TimeSeriesView(origin=f"{lane.entity}/action", name=f"{lane.name}, actions"))
        rows.append(rrb.Horizontal(*views))
    return rrb.Blueprint(rrb.Vertical(*rows), collapse_panels=True)
