"""Pictures without OpenGL: rays cast by MuJoCo's own `mj_multiRay`, shaded with numpy.

One ray a pixel finds the nearest geom and its depth. RGB comes from the geom's colour and the surface normal;
pixels on the edge of an object are then averaged over three rays, which keeps thin fingers from flickering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from wam.contracts import expected
from wam.simulation.cameras import Camera
from wam.simulation.shading import BACKGROUND, geom_colours, ground_geoms, shade, surface_normals

_VISIBLE_GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8).reshape(6, 1)  # MuJoCo's own default: groups 0 to 2
_HIDDEN_GROUP = 5
_FAR = 20.0
_NO_CUTOFF = 1e6


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A ball that is drawn but not part of the physics, such as a goal. position: metres; colour: RGB in [0, 1]."""

    position: tuple[float, float, float]
    radius: float = 0.02
    colour: tuple[float, float, float] = (0.05, 0.85, 0.15)


@dataclass(frozen=True)
class Rendering:
    """rgb (H, W, 3) uint8; depth (H, W) float32 metres along z, 0 where nothing is; segmentation (H, W) int32 geom
    index, -1 where nothing is, and the number of geoms plus i for marker i."""

    rgb: np.ndarray
    depth: np.ndarray
    segmentation: np.ndarray


class RayCaster:
    """Renders one model from fixed cameras. Directions, colours and buffers are made once.

    Geoms that are nearly transparent (alpha below 0.3: window panes) are moved to a hidden group of `model`, which
    changes no physics. The caller runs `mj_forward` before rendering.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, cameras: Sequence[Camera], *, antialias: bool = True
    ) -> None:
        self.model, self.data, self.antialias = model, data, antialias
        self.cameras = {camera.name: camera for camera in cameras}
        self._views = {camera.name: _View(camera) for camera in cameras}
        self._colours = geom_colours(model)
        self._fixed = model.body_weldid[model.geom_bodyid] == 0
        paint = np.unique(self._colours, axis=0, return_inverse=True)[1].ravel()  # equal numbers: equal colours
        self._paint = np.where(ground_geoms(model), -1 - paint, paint)
        alpha = model.geom_rgba[:, 3].copy()
        painted = model.geom_matid >= 0
        alpha[painted] = model.mat_rgba[model.geom_matid[painted], 3]
        model.geom_group[alpha < 0.3] = _HIDDEN_GROUP

    def render(self, camera: str, *, markers: Sequence[Marker] = ()) -> Rendering:
        """A picture of the data as it stands. Raises WamError on an unknown camera."""
        if camera not in self._views:
            raise expected(f"a camera among {list(self._views)}", got=repr(camera), do="give the caster that camera")
        view = self._views[camera]
        H, W = view.camera.height, view.camera.width
        depth, surface = self._scene(view)
        _draw_markers(depth, surface, view.origin, view.rays, markers, first=self.model.ngeom)
        depth, surface = depth.astype(np.float32).reshape(H, W), surface.reshape(H, W)
        seen = surface >= 0
        palette = self._palette(markers)
        points = view.rays.astype(np.float32).reshape(H, W, 3) * depth[..., None]
        normals = surface_normals(points, surface)
        rgb = shade(palette[surface], normals, view.towards)
        rgb[~seen] = BACKGROUND
        if self.antialias:
            self._smooth_edges(rgb, view, surface, palette, markers)
        return Rendering((rgb * 255 + 0.5).astype(np.uint8), np.where(seen, depth, np.float32(0)), surface)

    def close(self) -> None:
        """Nothing to free; OpenGL's renderers have."""

    def _palette(self, markers: Sequence[Marker]) -> np.ndarray:
        """Colours by surface index: geoms, then markers, then (index -1) the background."""
        if not markers:
            return self._colours
        extra = np.array([marker.colour for marker in markers], np.float32)
        return np.concatenate([self._colours[:-1], extra, self._colours[-1:]])

    def _scene(self, view: _View) -> _Cast:
        """Depth (H W,) and geom index (H W,) of the nearest geom; what cannot move is cast once and kept."""
        shown = self._fixed & _VISIBLE_GROUPS[self.model.geom_group, 0].astype(bool)  # not the unseen mocap bodies
        fixed = self.data.geom_xpos[shown].tobytes() + self.data.geom_xmat[shown].tobytes()
        if view.fixed_key != fixed:
            groups = self.model.geom_group.copy()
            self.model.geom_group[~self._fixed] = _HIDDEN_GROUP
            view.fixed_key, view.fixed = fixed, self._cast(view.origin, view.rays)
            if self.antialias:
                view.fixed_fine = self._cast(view.origin, view.fine.reshape(-1, 3))
            self.model.geom_group[:] = groups
        moving = self._cast(view.origin, view.rays, fixed_too=False)
        return _nearer(moving, view.fixed)

    def _cast(self, origin: np.ndarray, rays: np.ndarray, *, fixed_too: bool = True) -> _Cast:
        """Depth (N,) float64 and geom index (N,) int32 along rays (N, 3); depth is `_FAR` where nothing is."""
        N = len(rays)
        surface, depth = np.empty(N, np.int32), np.empty(N)
        # MuJoCo skips a geom where the ray lies outside the angles of its box's corners, which is wrong for long
        # boxes near the vertical through the camera. Boxes that hold the camera are never skipped, at no cost in time.
        boxes = self.model.geom_aabb[:, 3:].copy()
        self.model.geom_aabb[:, 3:] = _NO_CUTOFF
        mujoco.mj_multiRay(
            self.model,
            self.data,
            origin,
            rays.reshape(-1, 1),
            _VISIBLE_GROUPS,
            int(fixed_too),
            -1,
            surface,
            depth,
            N,
            _NO_CUTOFF,
        )
        self.model.geom_aabb[:, 3:] = boxes
        depth[surface < 0] = _FAR
        return depth, surface

    def _smooth_edges(
        self,
        rgb: np.ndarray,
        view: _View,
        surface: np.ndarray,
        palette: np.ndarray,
        markers: Sequence[Marker],
    ) -> None:
        """Replace pixels at the border of an object by the mean of three rays inside the pixel, in place.

        A ray that hits the surface of the pixel itself or of a neighbour takes that pixel's lit colour.
        """
        rows, columns = np.nonzero(self._edges(surface))
        if not len(rows):
            return
        pixels, S = rows * surface.shape[1] + columns, view.fine.shape[1]
        fine = view.fine[pixels].reshape(-1, 3)
        fixed_depth, fixed_surface = (values.reshape(-1, S)[pixels].ravel() for values in view.fixed_fine)
        depth, hit = _nearer(self._cast(view.origin, fine, fixed_too=False), (fixed_depth, fixed_surface))
        _draw_markers(depth, hit, view.origin, fine, markers, first=self.model.ngeom)
        hit = hit.reshape(len(rows), -1)
        value = palette[hit] * _TYPICAL_LIGHT
        value[hit < 0] = BACKGROUND
        padded, lit = np.pad(surface, 1, constant_values=-2), np.pad(rgb, ((1, 1), (1, 1), (0, 0)))
        for dr, dc in _NEIGHBOURS:  # the nearest neighbour comes last and wins
            r, c = rows + 1 + dr, columns + 1 + dc
            match = padded[r, c][:, None] == hit
            value[match] = np.broadcast_to(lit[r, c][:, None], value.shape)[match]
        rgb[rows, columns] = (rgb[rows, columns] + value.sum(axis=1)) / (1 + S)

    def _edges(self, surface: np.ndarray) -> np.ndarray:
        """True where a pixel's paint differs from one of its four neighbours' and not both are ground."""
        paint = self._paint[np.minimum(surface, len(self._paint) - 2)]
        paint[surface >= self.model.ngeom] = _MARKER_PAINT
        ground = paint < 0
        edge = np.zeros(surface.shape, bool)
        across = (paint[:, 1:] != paint[:, :-1]) & ~(ground[:, 1:] & ground[:, :-1])
        down = (paint[1:] != paint[:-1]) & ~(ground[1:] & ground[:-1])
        edge[:, 1:] |= across
        edge[:, :-1] |= across
        edge[1:] |= down
        edge[:-1] |= down
        return edge


_MARKER_PAINT = 1_000_000
_NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 0))
_TYPICAL_LIGHT = np.float32(0.7)


_Cast = tuple[np.ndarray, np.ndarray]  # depth and surface of each ray


class _View:
    """What a camera needs at every frame: origin (3, 1), rays (H W, 3), S more rays inside each pixel (H W, S, 3),
    unit vectors to the camera (H, W, 3), and what these rays meet of the things that cannot move."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.origin = np.asarray(camera.position, float).reshape(3, 1)
        rays, pose = camera.rays(), camera.extrinsics
        self.rays = np.ascontiguousarray(rays.reshape(-1, 3))
        quarter = 0.25 / camera.intrinsics[0, 0]
        within = np.array([sign * quarter * (pose[:3, 0] + 0.5 * pose[:3, 1]) for sign in (-1.2, 1.2)])
        self.fine = np.ascontiguousarray(self.rays[:, None] + within)
        self.towards = (-rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)
        self.fixed_key: bytes | None = None
        self.fixed: _Cast = (np.empty(0), np.empty(0))
        self.fixed_fine: _Cast = (np.empty(0), np.empty(0))


def _nearer(one: _Cast, two: _Cast) -> _Cast:
    """Of two casts of the same rays, what is in front."""
    behind = two[0] < one[0]
    return np.where(behind, two[0], one[0]), np.where(behind, two[1], one[1])


def _draw_markers(
    depth: np.ndarray,
    surface: np.ndarray,
    origin: np.ndarray,
    rays: np.ndarray,
    markers: Sequence[Marker],
    *,
    first: int,
) -> None:
    """Puts markers, as surfaces `first`, `first` + 1, ..., before what lies behind them, in place."""
    for index, marker in enumerate(markers):
        hit = _ball_depth(origin[:, 0], rays, marker)
        nearer = hit < depth
        depth[nearer], surface[nearer] = hit[nearer], first + index


def _ball_depth(origin: np.ndarray, rays: np.ndarray, marker: Marker) -> np.ndarray:
    """Depth (N,) at which rays (N, 3) enter the marker's ball, infinite where they miss it."""
    towards = np.asarray(marker.position) - origin
    a = np.einsum("nc,nc->n", rays, rays)
    b = np.einsum("nc,c->n", rays, towards)  # not BLAS, whose threads cost more than they give here
    discriminant = b * b - a * (towards @ towards - marker.radius**2)
    depth = np.full(len(rays), np.inf)
    hit = discriminant >= 0
    depth[hit] = (b[hit] - np.sqrt(discriminant[hit])) / a[hit]
    depth[depth <= 0] = np.inf
    return depth
