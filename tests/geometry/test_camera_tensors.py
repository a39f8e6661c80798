"""Cameras: world to pixels and back, and pictures that are cropped, resized and flipped keep theirs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wam.contracts import WamError
from wam.geometry.cameras import (
    check_cameras,
    cropped,
    flipped,
    in_frame,
    in_picture,
    project,
    resized,
    to_camera,
    to_world,
    unproject,
)

angles = st.floats(-math.pi, math.pi)
places = st.floats(-2.0, 2.0)
poses = st.builds(lambda a, b, c, x, y, z: pose((a, b, c), (x, y, z)), angles, angles, angles, places, places, places)
focal_lengths = st.floats(20.0, 200.0)


def pose(turns: tuple[float, float, float], place: tuple[float, float, float]) -> Tensor:
    """A rigid transform: turns about x, y and z, then a move."""
    found = torch.eye(4, dtype=torch.float64)
    for axis, angle in enumerate(turns):
        i, j = [k for k in range(3) if k != axis]
        turn = torch.eye(3, dtype=torch.float64)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        found[:3, :3] = turn @ found[:3, :3]
    found[:3, 3] = torch.tensor(place, dtype=torch.float64)
    return found


def pinhole(fx: float, fy: float, size: tuple[int, int]) -> Tensor:
    height, width = size
    return torch.tensor([[fx, 0, (width - 1) / 2], [0, fy, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64)


def points_before(extrinsics: Tensor, count: int = 20, seed: int = 0) -> Tensor:
    """World points in front of the camera."""
    generator = torch.Generator().manual_seed(seed)
    local = torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5
    local[:, 2] += 1.5
    return to_world(local, extrinsics)


@given(poses, focal_lengths, focal_lengths)
def test_a_depth_picture_unprojects_to_points_that_project_back(where: Tensor, fx: float, fy: float) -> None:
    size = (5, 7)
    depth = 0.5 + torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    intrinsics = pinhole(fx, fy, size)
    pixels, far = project(unproject(depth, intrinsics, where), intrinsics, where)
    row, column = torch.meshgrid(torch.arange(5.0).double(), torch.arange(7.0).double(), indexing="ij")
    torch.testing.assert_close(pixels.reshape(5, 7, 2), torch.stack([column, row], dim=-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(far.reshape(size), depth)
    assert in_picture(pixels, far, size).all()


def test_the_axes_are_opencvs_and_the_pose_is_camera_to_world() -> None:
    where = torch.eye(4, dtype=torch.float64)
    where[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    intrinsics = pinhole(100.0, 100.0, (64, 64))
    ahead, right, below = (torch.tensor(p, dtype=torch.float64) for p in ((1, 2, 5), (1.1, 2, 5), (1, 2.1, 5)))
    pixels, depth = project(torch.stack([ahead, right, below]), intrinsics, where)
    torch.testing.assert_close(depth, torch.full((3,), 2.0, dtype=torch.float64))
    assert pixels[0].tolist() == [31.5, 31.5]
    assert pixels[1, 0] > pixels[0, 0]
    assert pixels[2, 1] > pixels[0, 1]


def test_what_lies_behind_a_camera_is_not_in_its_picture() -> None:
    pixels, depth = project(torch.tensor([[0.0, 0.0, -1.0]]), pinhole(50, 50, (8, 8)).float(), torch.eye(4))
    assert not in_picture(pixels, depth, (8, 8)).any()


@given(poses, focal_lengths, st.integers(0, 9), st.integers(0, 9))
def test_a_cropped_picture_shows_a_point_where_it_was(where: Tensor, focal: float, left: int, top: int) -> None:
    points, intrinsics = points_before(where), pinhole(focal, focal, (30, 40))
    before, _ = project(points, intrinsics, where)
    after, _ = project(points, cropped(intrinsics, left=left, top=top), where)
    torch.testing.assert_close(after, before - torch.tensor([left, top]), atol=1e-6, rtol=0)


@given(poses, focal_lengths, st.integers(1, 80), st.integers(1, 80))
def test_a_resized_picture_shows_a_point_at_the_same_share_of_its_sides(
    where: Tensor, focal: float, height: int, width: int
) -> None:
    points, intrinsics, size = points_before(where), pinhole(focal, focal, (30, 40)), (30, 40)
    before, _ = project(points, intrinsics, where)
    after, _ = project(points, resized(intrinsics, before=size, after=(height, width)), where)
    shares = [(before + 0.5) / torch.tensor([40, 30]), (after + 0.5) / torch.tensor([width, height])]
    torch.testing.assert_close(shares[0], shares[1], atol=1e-6, rtol=0)


@given(poses, focal_lengths)
def test_a_flipped_picture_shows_a_point_in_the_mirrored_column(where: Tensor, focal: float) -> None:
    points, intrinsics = points_before(where), pinhole(focal, focal, (30, 40))
    before, depth = project(points, intrinsics, where)
    after, same = project(points, flipped(intrinsics, width=40), where)
    torch.testing.assert_close(after[:, 0], 39 - before[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(after[:, 1], before[:, 1], atol=1e-6, rtol=0)
    torch.testing.assert_close(same, depth)
    torch.testing.assert_close(flipped(flipped(intrinsics, width=40), width=40), intrinsics)


@given(poses, poses)
def test_another_world_frame_moves_cameras_and_points_alike(where: Tensor, frame: Tensor) -> None:
    points, intrinsics = points_before(where), pinhole(60.0, 60.0, (30, 40))
    pixels, depth = project(points, intrinsics, where)
    again, same = project(to_camera(points, frame), intrinsics, in_frame(where, frame))
    torch.testing.assert_close(again, pixels, atol=1e-5, rtol=0)
    torch.testing.assert_close(same, depth)


@settings(max_examples=20)
@given(poses)
def test_several_cameras_at_once_are_as_one_by_one(where: Tensor) -> None:
    cameras = torch.stack([where, torch.eye(4, dtype=torch.float64)])
    intrinsics = torch.stack([pinhole(40, 50, (8, 8)), pinhole(60, 70, (8, 8))])
    points = points_before(where)
    together, depths = project(points, intrinsics, cameras)
    for i in range(2):
        alone, depth = project(points, intrinsics[i], cameras[i])
        torch.testing.assert_close(together[i], alone)
        torch.testing.assert_close(depths[i], depth)


class TestWrongCameras:
    good = (pinhole(50, 50, (8, 8)), pose((0.3, 0.2, 0.1), (1.0, 2.0, 3.0)))

    def test_a_right_one_passes(self) -> None:
        check_cameras(*self.good)

    def test_swapped(self) -> None:
        with pytest.raises(WamError, match="which is which"):
            check_cameras(self.good[1], self.good[0])

    def test_transposed_intrinsics(self) -> None:
        with pytest.raises(WamError, match="last row is 0, 0, 1"):
            check_cameras(self.good[0].T, self.good[1])

    def test_transposed_extrinsics(self) -> None:
        with pytest.raises(WamError, match="not rigid"):
            check_cameras(self.good[0], self.good[1].T)

    def test_scaled_extrinsics(self) -> None:
        with pytest.raises(WamError, match="without scale"):
            check_cameras(self.good[0], 1000 * self.good[1])
