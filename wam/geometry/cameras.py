"""Pinhole cameras as tensors: world to pixels and back, and what cropping, resizing and flipping do to a camera.

Conventions: OpenCV axes (x right, y down, z forward); extrinsics are camera-to-world; metres; pixel centres at whole
numbers, so that the principal point of an image of width W is (W - 1) / 2; depth is along z, and 0 or a number that is
not finite where it is unknown. A negative focal length is a mirrored picture. Any leading dimensions broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wam.contracts import Batch, expected


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """The cameras of B rows of V pictures: intrinsics (B, V, 3, 3) and rigid extrinsics (B, V, 4, 4); mask (B, V) bool,
    which of them there are. Checked where a batch brings them (`of`), not each time that some are taken."""

    intrinsics: Tensor
    extrinsics: Tensor
    mask: Tensor

    def check(self) -> Cameras:
        """Itself. Raises WamError for too few, for rows without any, and for matrices that are none."""
        wanted = tuple(self.mask.shape)
        if self.intrinsics.shape[:-2] != wanted or self.extrinsics.shape[:-2] != wanted:
            raise expected(
                f"a camera for each of {wanted[1]} views of {wanted[0]} rows",
                got=f"intrinsics {tuple(self.intrinsics.shape)}, extrinsics {tuple(self.extrinsics.shape)}",
                do="give the cameras in the order of the images",
            )
        if not self.mask.any(1).all():
            raise expected("at least one camera in every row", got="a row without any", do="leave such rows out")
        check_cameras(self.intrinsics, self.extrinsics)
        return self

    @classmethod
    def of(cls, batch: Batch) -> Cameras:
        """Raises WamError if the batch does not say where its cameras are."""
        if batch.intrinsics is None or batch.extrinsics is None:
            raise expected(
                "a batch with intrinsics and extrinsics",
                got="a batch without cameras",
                do="give them; a dataset's are read with `WindowSpec(geometry=True)`",
            )
        mask = batch.view_mask
        if mask is None:
            mask = torch.ones(batch.images.shape[:2], dtype=torch.bool, device=batch.images.device)
        return cls(intrinsics=batch.intrinsics.float(), extrinsics=batch.extrinsics.float(), mask=mask).check()

    def take(self, rows: Tensor) -> Cameras:
        """Those of the rows of these indices (N,)."""
        return Cameras(intrinsics=self.intrinsics[rows], extrinsics=self.extrinsics[rows], mask=self.mask[rows])


def check_cameras(intrinsics: Tensor, extrinsics: Tensor) -> None:
    """Raise unless these are intrinsics (..., 3, 3) and rigid camera-to-world poses (..., 4, 4).

    Matrices that were swapped, transposed or scaled are told apart by what they must hold.
    """
    shapes = (tuple(intrinsics.shape[-2:]), tuple(extrinsics.shape[-2:]))
    if shapes != ((3, 3), (4, 4)):
        raise expected("intrinsics (..., 3, 3) and extrinsics (..., 4, 4)", got=shapes, do="check which is which")
    last = intrinsics.new_tensor([0.0, 0.0, 1.0])
    if not torch.allclose(intrinsics[..., 2, :], last.expand_as(intrinsics[..., 2, :]), atol=1e-5):
        raise expected(
            "intrinsics whose last row is 0, 0, 1",
            got=[round(x, 4) for x in intrinsics.reshape(-1, 3, 3)[0, 2].tolist()],
            do="give fx, fy, cx, cy in pixels, not transposed",
        )
    bottom = extrinsics.new_tensor([0.0, 0.0, 0.0, 1.0])
    turn = extrinsics[..., :3, :3]
    gram = turn.transpose(-1, -2) @ turn
    rigid = torch.allclose(gram, torch.eye(3, dtype=gram.dtype, device=gram.device).expand_as(gram), atol=1e-3)
    if not rigid or not torch.allclose(extrinsics[..., 3, :], bottom.expand_as(extrinsics[..., 3, :]), atol=1e-5):
        raise expected(
            "camera-to-world extrinsics: a rotation, a position and a last row 0, 0, 0, 1",
            got="a matrix that is not rigid",
            do="transpose it if positions lie in the last row, and give metres without scale",
        )


def to_camera(points: Tensor, extrinsics: Tensor) -> Tensor:
    """World points (..., N, 3) seen from cameras (..., 4, 4): (..., N, 3) along the camera's axes."""
    return (points - extrinsics[..., None, :3, 3]) @ extrinsics[..., :3, :3]


def to_world(points: Tensor, extrinsics: Tensor) -> Tensor:
    """The inverse of `to_camera`."""
    return points @ extrinsics[..., :3, :3].transpose(-1, -2) + extrinsics[..., None, :3, 3]


def project(points: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """World points (..., N, 3) -> pixels (..., N, 2) as (column, row), and depths (..., N) in metres.

    A point at or behind the camera has a depth of at most 0 and pixels that mean nothing.
    """
    local = to_camera(points, extrinsics)
    depth = local[..., 2]
    seen = local @ intrinsics.transpose(-1, -2)
    return seen[..., :2] / depth.clamp_min(1e-6)[..., None], depth


def unproject(depth: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> Tensor:
    """Depth (..., H, W) -> the world points of its pixels (..., H * W, 3)."""
    height, width = depth.shape[-2:]
    row, column = torch.meshgrid(
        torch.arange(height, dtype=depth.dtype, device=depth.device),
        torch.arange(width, dtype=depth.dtype, device=depth.device),
        indexing="ij",
    )
    pixels = torch.stack([column, row, torch.ones_like(row)], dim=-1).reshape(-1, 3)
    rays = pixels @ torch.linalg.inv(intrinsics).transpose(-1, -2)
    return to_world(rays * depth.flatten(-2)[..., None], extrinsics)


def in_picture(pixels: Tensor, depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Which pixels (..., N, 2) in front of the camera fall on a picture of `size` (H, W)."""
    height, width = size
    column, row = pixels[..., 0], pixels[..., 1]
    inside = (column >= -0.5) & (column < width - 0.5) & (row >= -0.5) & (row < height - 0.5)
    return inside & (depth > 0)


def cropped(intrinsics: Tensor, *, left: int, top: int) -> Tensor:
    """Intrinsics of the picture without its first `left` columns and `top` rows."""
    moved = intrinsics.clone()
    moved[..., 0, 2] -= left
    moved[..., 1, 2] -= top
    return moved


def resized(intrinsics: Tensor, *, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Intrinsics of the picture brought from size (H, W) `before` to `after`, pixel edges kept in place."""
    scaled = intrinsics.clone()
    for axis, (old, new) in enumerate(zip(reversed(before), reversed(after), strict=True)):
        scale = new / old
        scaled[..., axis, :2] *= scale
        scaled[..., axis, 2] = (intrinsics[..., axis, 2] + 0.5) * scale - 0.5
    return scaled


def flipped(intrinsics: Tensor, *, width: int) -> Tensor:
    """Intrinsics of the mirrored picture: the world stays, the focal length along x turns its sign."""
    mirrored = intrinsics.clone()
    mirrored[..., 0, :] *= -1
    mirrored[..., 0, 2] += width - 1
    return mirrored


def in_frame(extrinsics: Tensor, frame: Tensor) -> Tensor:
    """Extrinsics told in another world frame; frame (4, 4): that frame's pose in the old world.

    Datasets with worlds of their own are aligned this way, each by one constant matrix.
    """
    return torch.linalg.inv(frame) @ extrinsics
