"""Pinhole cameras in OpenCV's convention, and the named views of the table.

Axes of a camera: x right, y down, z forward. Pixel centres lie at whole numbers, so the principal point of an
image of width W is (W - 1) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np

from wam.contracts import expected

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where a camera stands and what it sees.

    position, look_at: metres in the world's frame; up: world direction that points up in the image (not parallel to
    the view); fovy: vertical field of view in degrees; width, height: pixels.
    """

    name: str
    position: Vector
    look_at: Vector
    up: Vector = (0.0, 0.0, 1.0)
    fovy: float = 32.0
    width: int = 64
    height: int = 64

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or not 0 < self.fovy < 180:
            raise expected(
                f"camera {self.name!r} with at least one pixel and a field of view between 0 and 180 degrees",
                got=f"{self.width}x{self.height} and {self.fovy}",
                do="correct the camera",
            )
        forward = np.subtract(self.look_at, self.position)
        if np.linalg.norm(np.cross(forward, self.up)) < 1e-9:
            raise expected(
                f"camera {self.name!r} with `up` across its view", got=f"up {self.up}", do="choose another `up`"
            )

    def resized(self, height: int, width: int) -> Camera:
        return replace(self, height=height, width=width)

    def moved(self, *, metres: float, degrees: float, seed: int = 0) -> Camera:
        """The same camera `metres` away in some direction, and turned by `degrees` about some axis across its view."""
        rng = np.random.default_rng([seed, *self.name.encode()])
        shift, across = rng.normal(size=(2, 3))
        forward = np.subtract(self.look_at, self.position)
        across -= forward * (across @ forward) / (forward @ forward)
        axis, angle = across / np.linalg.norm(across), np.radians(degrees)
        turned = forward * np.cos(angle) + np.cross(axis, forward) * np.sin(angle)
        position = np.add(self.position, metres * shift / np.linalg.norm(shift))
        x, y, z = position.tolist()
        u, v, w = (position + turned).tolist()
        return replace(self, position=(x, y, z), look_at=(u, v, w))

    @property
    def intrinsics(self) -> np.ndarray:
        """(3, 3) float64, in pixels."""
        focal = 0.5 * self.height / np.tan(np.radians(self.fovy) / 2)
        return np.array([[focal, 0, (self.width - 1) / 2], [0, focal, (self.height - 1) / 2], [0, 0, 1]])

    @property
    def extrinsics(self) -> np.ndarray:
        """(4, 4) float64 camera-to-world: columns are the camera's x, y, z axes and its position."""
        forward = np.subtract(self.look_at, self.position)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, self.up)
        right = right / np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.stack([right, np.cross(forward, right), forward, np.asarray(self.position)], axis=1)
        return pose

    def rays(self) -> np.ndarray:
        """(H, W, 3) float64 world directions through the pixel centres; one unit is one metre of depth."""
        focal, (cx, cy) = self.intrinsics[0, 0], self.intrinsics[:2, 2]
        x, y = np.meshgrid((np.arange(self.width) - cx) / focal, (np.arange(self.height) - cy) / focal)
        return np.stack([x, y, np.ones_like(x)], axis=-1) @ self.extrinsics[:3, :3].T

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (..., 3) to pixels (..., 2) as (column, row), and depths (...) in metres."""
        pose = self.extrinsics
        local = (np.asarray(points) - pose[:3, 3]) @ pose[:3, :3]
        pixels = local @ self.intrinsics.T
        return pixels[..., :2] / pixels[..., 2:], local[..., 2]


#: Views of Meta-World's table, close enough that the hand covers several pixels at 64 x 64.
VIEWS: dict[str, Camera] = {
    camera.name: camera
    for camera in (
        Camera(name="side", position=(1.5, 0.65, 0.55), look_at=(0.0, 0.65, 0.24)),
        Camera(name="top", position=(0.0, 0.62, 2.0), look_at=(0.0, 0.62, 0.0), up=(0.0, 1.0, 0.0)),
        Camera(name="oblique", position=(1.1, -0.1, 1.0), look_at=(0.0, 0.68, 0.17), fovy=34.0),
    )
}
DEFAULT_VIEWS = ("side", "top")


def choose_cameras(
    cameras: Sequence[str | Camera] | None, *, image_size: int | tuple[int, int], views: dict[str, Camera] = VIEWS
) -> tuple[Camera, ...]:
    """Cameras by name or as given, at the wanted size (a number, or (height, width)); None means the default views."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    chosen = []
    for camera in DEFAULT_VIEWS if cameras is None else cameras:
        if isinstance(camera, str):
            if camera not in views:
                near = get_close_matches(camera, views, n=1) or sorted(views)
                raise expected(f"a camera among {', '.join(views)}", got=repr(camera), do=f"did you mean {near[0]!r}?")
            camera = views[camera]
        chosen.append(camera.resized(height, width))
    names = [camera.name for camera in chosen]
    if not names or len(set(names)) < len(names):
        raise expected("at least one camera, each once", got=names, do="name different cameras")
    return tuple(chosen)
