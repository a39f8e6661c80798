"""The renderers by name: ray casting, which always works, and OpenGL through EGL or OSMesa, only when asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import mujoco
import numpy as np

from wam.contracts import WamError, expected
from wam.simulation.cameras import Camera
from wam.simulation.raycast import Marker, RayCaster, Rendering

RENDERERS = ("raycast", "egl", "osmesa")


class Renderer(Protocol):
    def render(self, camera: str, *, markers: Sequence[Marker] = ()) -> Rendering: ...
    def close(self) -> None: ...


def make_renderer(name: str, model: mujoco.MjModel, data: mujoco.MjData, cameras: Sequence[Camera]) -> Renderer:
    """A renderer by name. Raises WamError if there is none of that name or it cannot run here."""
    if name == "raycast":
        return RayCaster(model, data, cameras)
    if name in RENDERERS:
        return OpenGL(name, model, data, cameras)
    raise expected(f"a renderer among {', '.join(RENDERERS)}", got=repr(name), do="name one of them")


class OpenGL:
    """MuJoCo's own rasterizer in a context of the named platform: colours, depth and segmentation.

    Shadows, reflections and haze are off, which on a software rasterizer is the difference between 5 and 100 ms.
    """

    def __init__(self, platform: str, model: mujoco.MjModel, data: mujoco.MjData, cameras: Sequence[Camera]) -> None:
        self.model, self.data = model, data
        self.cameras = {camera.name: camera for camera in cameras}
        width = max(camera.width for camera in cameras)
        height = max(camera.height for camera in cameras)
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        self._context: Any = None
        self._gl: Any = None
        try:
            os.environ["PYOPENGL_PLATFORM"] = platform
            self._gl = import_module(f"mujoco.{platform}").GLContext(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        except Exception as error:  # whatever the driver raises, the user has to choose again
            raise WamError(
                f"expected a working {platform} to render with, got {type(error).__name__}: {error}; "
                f"install PyOpenGL and {platform}'s library, or use renderer='raycast'"
            ) from error
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE):
            self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0

    def render(self, camera: str, *, markers: Sequence[Marker] = ()) -> Rendering:
        view = self.cameras[camera]
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self.model,
            self.data,
            self._option,
            None,
            mujoco.MjvCamera(),
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        for marker in markers:
            self._add(marker)
        near, far = self._aim(view)
        rgb, z = self._read(view)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = self._scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        ids, _ = self._read(view)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = self._scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 0
        depth = near * far / (far - z.astype(np.float64) * (far - near))
        segment = ids.astype(np.int32) @ np.array([1, 256, 65536], np.int32) - 1
        surface = self._geoms()[segment]
        return Rendering(rgb, np.where(surface >= 0, depth, 0).astype(np.float32), surface)

    def close(self) -> None:
        """Free the context; a second renderer made before this one is closed may give garbage."""
        if self._context is not None:
            self._context.free()
            self._gl.free()
            self._context = None

    def _add(self, marker: Marker) -> None:
        geom = self._scene.geoms[self._scene.ngeom]
        mujoco.mjv_initGeom(
            geom,
            mujoco.mjtGeom.mjGEOM_SPHERE,
            np.full(3, marker.radius),
            np.asarray(marker.position, float),
            np.eye(3).ravel(),
            np.array([*marker.colour, 1], np.float32),
        )
        geom.segid = self._scene.ngeom
        self._scene.ngeom += 1

    def _aim(self, view: Camera) -> tuple[float, float]:
        pose, near, far = view.extrinsics, 0.05, 10.0
        half = near * np.tan(np.radians(view.fovy) / 2)
        for camera in self._scene.camera:
            camera.pos[:] = pose[:3, 3]
            camera.forward[:], camera.up[:] = pose[:3, 2], -pose[:3, 1]
            camera.frustum_near, camera.frustum_far = near, far
            camera.frustum_bottom, camera.frustum_top = -half, half
            camera.frustum_center, camera.frustum_width = 0.0, half * view.width / view.height
        return near, far

    def _read(self, view: Camera) -> tuple[np.ndarray, np.ndarray]:
        area = mujoco.MjrRect(0, 0, view.width, view.height)
        mujoco.mjr_render(area, self._scene, self._context)
        rgb = np.empty((view.height, view.width, 3), np.uint8)
        depth = np.empty((view.height, view.width), np.float32)
        mujoco.mjr_readPixels(rgb, depth, area, self._context)
        return rgb[::-1].copy(), depth[::-1].copy()

    def _geoms(self) -> np.ndarray:
        """Segment id -> geom index, markers following the geoms; the last entry, index -1, is nothing."""
        table = np.full(self._scene.ngeom + 1, -1, np.int32)
        marker = self.model.ngeom
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid < 0:
                continue
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                table[geom.segid] = geom.objid
            elif geom.objtype == mujoco.mjtObj.mjOBJ_UNKNOWN:
                table[geom.segid], marker = marker, marker + 1
        return table
