"""What a scene's geoms fill, exactly but for the sampling: the truth that voxels seen by cameras are a part of.

Every geom is sampled once, in its own axes, on its surface and inside. A pose of the scene then only moves the points, which
costs far less than casting rays through every voxel.
"""

from __future__ import annotations

import hashlib

import mujoco
import numpy as np

from wam.contracts import expected
from wam.geometry.grid import VoxelConfig

_GEOM = mujoco.mjtGeom
_VISIBLE_GROUPS = 3  # MuJoCo's own default: groups 0 to 2


class Solids:
    """The visible geoms of a model in a grid of voxels. Points lie at most half a voxel apart, so none is missed.

    What cannot move is filled in once. Infinite planes are not solids; give the table or floor a box.
    """

    def __init__(self, model: mujoco.MjModel, grid: VoxelConfig) -> None:
        grid.validate()
        self.model, self.grid = model, grid
        self._fixed = model.body_weldid[model.geom_bodyid] == 0
        spacing = grid.side / 2
        self._points: dict[int, np.ndarray] = {}
        self._reach: dict[int, float] = {}
        for geom in np.flatnonzero(model.geom_group < _VISIBLE_GROUPS):
            points = sample(model, int(geom), spacing)
            if len(points):
                self._points[int(geom)] = np.ascontiguousarray(points.T, np.float32)  # (3, N): each axis in a row
                self._reach[int(geom)] = float(np.linalg.norm(points, axis=1).max())
        self._still: np.ndarray | None = None
        self._still_key = b""

    def fill(self, data: mujoco.MjData) -> np.ndarray:
        """(X, Y, Z) int32: the index of a geom that reaches into the voxel, the last one where several do; -1: none.

        The caller has run `mj_forward` on the data."""
        fixed = [geom for geom in self._points if self._fixed[geom]]
        key = data.geom_xpos[fixed].tobytes() + data.geom_xmat[fixed].tobytes()
        if self._still is None or key != self._still_key:
            empty = np.full(self.grid.count, -1, np.int32)
            self._still, self._still_key = self._draw(empty, data, fixed), key
        moving = [geom for geom in self._points if not self._fixed[geom]]
        return self._draw(self._still.copy(), data, moving).reshape(self.grid.shape)

    def _draw(self, cells: np.ndarray, data: mujoco.MjData, geoms: list[int]) -> np.ndarray:
        low, counts, side = np.asarray(self.grid.origin), np.asarray(self.grid.shape), self.grid.side
        for geom in geoms:
            place, turn = data.geom_xpos[geom] - low, data.geom_xmat[geom].reshape(3, 3).T
            if (np.maximum(-place, place - side * counts) > self._reach[geom]).any():
                continue  # too far away to reach in
            moved = (turn.T / side).astype(np.float32) @ self._points[geom]
            moved += (place / side).astype(np.float32)[:, None]
            x, y, z = moved
            inside = (x >= 0) & (x < counts[0]) & (y >= 0) & (y < counts[1]) & (z >= 0) & (z < counts[2])
            x, y, z = moved[:, inside].astype(np.int64)
            cells[(x * counts[1] + y) * counts[2] + z] = geom
        return cells


def sample(model: mujoco.MjModel, geom: int, spacing: float) -> np.ndarray:
    """Points (N, 3) of a geom in its own axes: its surface and its inside, at most `spacing` metres apart along each axis.
    None for an infinite plane."""
    kind, size = model.geom_type[geom], model.geom_size[geom]
    if kind == _GEOM.mjGEOM_PLANE:
        return np.empty((0, 3))
    if kind == _GEOM.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        face, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        corners = model.mesh_vert[first : first + count][model.mesh_face[face : face + faces]].astype(np.float64)
        return on_and_inside(corners, spacing)
    r, half = size[0], size[1]
    reach = {
        _GEOM.mjGEOM_SPHERE: (r, r, r),
        _GEOM.mjGEOM_CAPSULE: (r, r, half + r),
        _GEOM.mjGEOM_CYLINDER: (r, r, half),
        _GEOM.mjGEOM_ELLIPSOID: tuple(size),
        _GEOM.mjGEOM_BOX: tuple(size),
    }.get(kind)
    if reach is None:
        raise expected(
            "geoms that are spheres, capsules, cylinders, ellipsoids, boxes, meshes or planes",
            got=f"{mujoco.mjtGeom(kind).name} for geom {geom}",
            do="hide it (group 3 or above) or replace it",
        )
    axes = [np.linspace(-side, side, max(2, int(np.ceil(2 * side / spacing)) + 1)) for side in reach]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    x, y, z = points.T
    slack = 1 + 1e-9
    if kind == _GEOM.mjGEOM_SPHERE:
        inside = (points**2).sum(1) <= slack * r**2
    elif kind == _GEOM.mjGEOM_CAPSULE:
        inside = x**2 + y**2 + np.maximum(np.abs(z) - half, 0) ** 2 <= slack * r**2
    elif kind == _GEOM.mjGEOM_CYLINDER:
        inside = x**2 + y**2 <= slack * r**2
    elif kind == _GEOM.mjGEOM_ELLIPSOID:
        inside = ((points / size) ** 2).sum(1) <= slack
    else:
        inside = np.ones(len(points), bool)
    return points[inside]


_SAMPLED: dict[tuple[bytes, float], np.ndarray] = {}  # of meshes: a robot's are the same in all its scenes


def on_and_inside(corners: np.ndarray, spacing: float) -> np.ndarray:
    """Points (N, 3) on triangles (M, 3, 3) and inside of what they enclose; each mesh is sampled once in a process."""
    key = (hashlib.sha256(corners.tobytes()).digest(), spacing)
    if key not in _SAMPLED:
        _SAMPLED[key] = np.concatenate([on_triangles(corners, spacing), inside_triangles(corners, spacing)])
    return _SAMPLED[key]


def on_triangles(corners: np.ndarray, spacing: float) -> np.ndarray:
    """Points (N, 3) on triangles (M, 3, 3), at most `spacing` apart."""
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(1)
    found = []
    for cuts in np.unique(parts := np.maximum(1, np.ceil(edges / spacing)).astype(int)):
        i, j = np.meshgrid(np.arange(cuts + 1), np.arange(cuts + 1), indexing="ij")
        i, j = i[i + j <= cuts], j[i + j <= cuts]
        weights = np.stack([i, j, cuts - i - j], axis=-1) / cuts
        found.append(np.einsum("pk,mkd->mpd", weights, corners[parts == cuts]).reshape(-1, 3))
    return np.unique((np.concatenate(found) / (0.1 * spacing)).round(), axis=0) * (0.1 * spacing)


def inside_triangles(corners: np.ndarray, spacing: float) -> np.ndarray:
    """Points (N, 3) inside a closed surface of triangles (M, 3, 3): those above which a column along z crosses it an odd
    number of times."""
    low, high = corners.min((0, 1)), corners.max((0, 1))
    shift = np.array([0.4142, 0.7321, 0.5]) * spacing  # columns that run through no edge
    x, y, z = (np.arange(a + s, b, spacing) for a, b, s in zip(low, high, shift, strict=True))
    columns = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    if not len(columns) or not len(z):
        return np.empty((0, 3))
    above = np.zeros((len(columns), len(z)), np.int64)
    for a, b, c in corners:
        box = np.minimum(np.minimum(a, b), c)[:2], np.maximum(np.maximum(a, b), c)[:2]
        near = np.flatnonzero(((columns >= box[0]) & (columns <= box[1])).all(1))
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if not len(near) or abs(area) < 1e-15:
            continue
        p = columns[near] - a[:2]
        u = (p[:, 0] * (c[1] - a[1]) - p[:, 1] * (c[0] - a[0])) / area
        v = (p[:, 1] * (b[0] - a[0]) - p[:, 0] * (b[1] - a[1])) / area
        hit = (u >= 0) & (v >= 0) & (u + v <= 1)
        height = a[2] + u[hit] * (b[2] - a[2]) + v[hit] * (c[2] - a[2])
        above[near[hit]] += height[:, None] > z
    column, level = np.nonzero(above % 2)
    return np.column_stack([columns[column], z[level]])
