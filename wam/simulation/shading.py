"""How surfaces look: a colour for each geom of a MuJoCo model, normals from a depth image, and three lights."""

from __future__ import annotations

import mujoco
import numpy as np

from wam.geometry.surface import GROUND, OBJECT, ROBOT

BACKGROUND = np.array([0.62, 0.66, 0.70], np.float32)
_GROUND = {"floor": (0.38, 0.40, 0.42), "tablelink": (0.80, 0.74, 0.64), "RetainingWall": (0.50, 0.52, 0.56)}
_ARM = (0.38, 0.29, 0.55)
_HAND = (0.16, 0.17, 0.22)
_FINGERS = {"rightpad": (1.0, 0.48, 0.05), "leftpad": (0.10, 0.85, 0.90)}
_SATURATION = 1.35  # objects stand out from the table at 64 x 64
_ARM_BODIES = ("right_arm_base_link", "right_l", "head")

#: World directions towards the lights with their strengths, added to ambient light and a lamp at the camera.
_LIGHTS = (((-0.35, -0.55, 0.76), 0.30), ((0.60, -0.20, 0.77), 0.22))
_AMBIENT, _CAMERA_LAMP = 0.36, 0.30


def geom_colours(model: mujoco.MjModel) -> np.ndarray:
    """(ngeom + 1, 3) float32 in [0, 1]: what each geom reflects; the last row, index -1, is the background.

    A geom takes its material's colour times the mean of its texture. The robot and the table take fixed
    colours instead, so that arm, hand, fingers, table and objects differ at 64 x 64 pixels.
    """
    colours = np.empty((model.ngeom + 1, 3), np.float32)
    for geom in range(model.ngeom):
        fixed = _fixed_colour(model, geom)
        colours[geom] = fixed if fixed is not None else _vivid(_material_colour(model, geom))
    colours[-1] = BACKGROUND
    return colours


def ground_geoms(model: mujoco.MjModel) -> np.ndarray:
    """(ngeom + 1,) bool: floor, table and walls, and the background (last row)."""
    names = [{model.geom(geom).name, model.body(model.geom_bodyid[geom]).name} for geom in range(model.ngeom)]
    return np.array([bool(name & _GROUND.keys()) for name in names] + [True])


def geom_kinds(model: mujoco.MjModel) -> np.ndarray:
    """(ngeom + 1,) uint8: ROBOT, OBJECT or GROUND for each geom; the last row, index -1, is the background."""
    kinds = [ROBOT if _fixed_colour(model, geom) is not None else OBJECT for geom in range(model.ngeom)]
    return np.where(ground_geoms(model), GROUND, np.array([*kinds, GROUND])).astype(np.uint8)


def _vivid(colour: np.ndarray) -> np.ndarray:
    grey = colour.mean()
    return np.clip(grey + _SATURATION * (colour - grey), 0, 1)


def _fixed_colour(model: mujoco.MjModel, geom: int) -> tuple[float, float, float] | None:
    body = model.body(model.geom_bodyid[geom]).name
    name = model.geom(geom).name
    if name in _GROUND or body in _GROUND:
        return _GROUND[name if name in _GROUND else body]
    if body in _FINGERS:
        return _FINGERS[body]
    if body in ("right_hand", "hand"):
        return _HAND
    return _ARM if body.startswith(_ARM_BODIES) else None


def _material_colour(model: mujoco.MjModel, geom: int) -> np.ndarray:
    material = model.geom_matid[geom]
    if material < 0:
        return model.geom_rgba[geom, :3]
    colour = model.mat_rgba[material, :3]
    texture = model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB]
    if texture < 0:
        return colour
    start, channels = model.tex_adr[texture], model.tex_nchannel[texture]
    size = model.tex_height[texture] * model.tex_width[texture] * channels
    texels = model.tex_data[start : start + size].reshape(-1, channels)
    return colour * texels[:, :3].mean(axis=0) / 255


def surface_normals(points: np.ndarray, surfaces: np.ndarray) -> np.ndarray:
    """Unit normals (H, W, 3) of the surface points (H, W, 3) seen by a camera; surfaces (H, W) tells them apart.

    Along each axis the difference to the nearer neighbour on the same surface is used, so that an edge does
    not bend the normal; a pixel that has no such neighbour gets a zero normal.
    """
    across = _tangent(points, surfaces, axis=1)
    down = _tangent(points, surfaces, axis=0)
    normals = np.stack(
        (
            down[..., 1] * across[..., 2] - down[..., 2] * across[..., 1],
            down[..., 2] * across[..., 0] - down[..., 0] * across[..., 2],
            down[..., 0] * across[..., 1] - down[..., 1] * across[..., 0],
        ),
        axis=-1,
    )
    length = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))
    return normals / np.maximum(length, 1e-12)[..., None]


def _tangent(points: np.ndarray, surfaces: np.ndarray, *, axis: int) -> np.ndarray:
    if axis == 0:
        return _tangent(points.swapaxes(0, 1), surfaces.swapaxes(0, 1), axis=1).swapaxes(0, 1)
    step = points[:, 1:] - points[:, :-1]
    cost = np.einsum("hwc,hwc->hw", step, step)
    cost[surfaces[:, 1:] != surfaces[:, :-1]] = np.inf
    H, W = surfaces.shape
    costs = np.full((H, W + 1), np.inf, points.dtype)
    costs[:, 1:-1] = cost
    ahead = costs[:, 1:] < costs[:, :-1]
    steps = np.zeros((H, W + 1, 3), points.dtype)
    steps[:, 1:-1] = step
    chosen = np.where(ahead[..., None], steps[:, 1:], steps[:, :-1])
    chosen[np.isinf(np.minimum(costs[:, 1:], costs[:, :-1]))] = 0
    return chosen


def shade(colours: np.ndarray, normals: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Lit colours (..., 3) in [0, 1]; colours, unit normals and unit directions `towards` the camera: (..., 3)."""
    facing = np.einsum("...c,...c->...", normals, towards)
    flipped = np.where(facing < 0, np.float32(-1), np.float32(1))
    light = _AMBIENT + _CAMERA_LAMP * np.abs(facing)
    for direction, strength in _LIGHTS:
        unit = np.asarray(direction, np.float32) / np.float32(np.linalg.norm(direction))
        light += strength * np.maximum(np.einsum("...c,c->...", normals, unit) * flipped, 0)
    light[facing == 0] = _AMBIENT + _CAMERA_LAMP  # a surface one pixel small: as if facing the camera
    return np.minimum(colours * light[..., None], 1.0)
