"""Voxel grids from depth: a box before known cameras, holes in the depth, and cameras that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wam.contracts import WamError
from wam.geometry.cameras import to_world, unproject
from wam.geometry.grid import VoxelConfig
from wam.geometry.voxels import FREE, OCCUPIED, UNKNOWN, fuse_colours, fuse_depth, rows_of

SIZE = 96
GRID = VoxelConfig(shape=[20, 20, 10], origin=[-0.5, -0.5, 0.0], side=0.05)
LOW, HIGH = torch.tensor([-0.2, -0.1, 0.0]), torch.tensor([0.1, 0.2, 0.2])  # the box, on a floor at z = 0


def look(position: tuple[float, float, float]) -> Tensor:
    """A camera that looks from there at the middle of the box."""
    place = torch.tensor(position)
    forward = torch.nn.functional.normalize((LOW + HIGH) / 2 - place, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, torch.tensor([0.02, 0.01, 1.0])), dim=0)
    pose = torch.eye(4)
    pose[:3] = torch.stack([right, torch.linalg.cross(forward, right), forward, place], dim=1)
    return pose


def cameras(*positions: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    middle = (SIZE - 1) / 2
    one = torch.tensor([[1.2 * SIZE, 0, middle], [0, 1.2 * SIZE, middle], [0, 0, 1.0]])
    return one.expand(len(positions), 3, 3).clone(), torch.stack([look(p) for p in positions])


def seen_depth(intrinsics: Tensor, extrinsics: Tensor) -> Tensor:
    """Depth (V, SIZE, SIZE) of the box and the floor, by slabs."""
    found = []
    for k, pose in zip(intrinsics, extrinsics, strict=True):
        row, column = torch.meshgrid(torch.arange(SIZE).float(), torch.arange(SIZE).float(), indexing="ij")
        local = torch.stack([(column - k[0, 2]) / k[0, 0], (row - k[1, 2]) / k[1, 1], torch.ones_like(row)], dim=-1)
        rays = to_world(local.reshape(-1, 3), pose) - pose[:3, 3]
        near, far = ((bound - pose[:3, 3]) / rays for bound in (LOW, HIGH))
        enter, leave = torch.minimum(near, far).amax(1), torch.maximum(near, far).amin(1)
        floor = -pose[2, 3] / rays[:, 2]
        floor = torch.where(floor > 0, floor, torch.inf)
        found.append(torch.where((enter <= leave) & (enter > 0), enter.minimum(floor), floor).reshape(SIZE, SIZE))
    return torch.stack(found)


AROUND = ((1.0, -0.6, 0.9), (-0.9, -0.8, 0.8), (0.1, 1.0, 1.0))


def test_a_box_is_a_shell_above_a_floor_with_the_unknown_inside() -> None:
    k, pose = cameras(*AROUND)
    fused = fuse_depth(seen_depth(k, pose), k, pose, GRID)
    assert fused.shape == (20, 20, 10)
    assert fused.dtype == torch.uint8
    top = fused[7:11, 9:13, 4]  # z from .20 to .25: the face at .20 lies on its edge
    assert ((fused[7:11, 9:13, 3] == OCCUPIED) | (top == OCCUPIED)).all()
    assert (fused[7:11, 9:13, 1] == UNKNOWN).all()  # inside
    assert (fused[7:11, 9:13, 6:] == FREE).all()
    assert (fused[:, :, 8] != OCCUPIED).all()


def test_a_second_camera_frees_what_the_first_could_not_see() -> None:
    k, pose = cameras(*AROUND)
    depth = seen_depth(k, pose)
    one, all_of_them = fuse_depth(depth[:1], k[:1], pose[:1], GRID), fuse_depth(depth, k, pose, GRID)
    assert (all_of_them == UNKNOWN).sum() < (one == UNKNOWN).sum()
    assert (all_of_them[one == OCCUPIED] == OCCUPIED).all()


@pytest.mark.parametrize("hole", [0.0, float("nan"), float("inf")])
def test_pixels_without_depth_say_nothing(hole: float) -> None:
    k, pose = cameras(*AROUND)
    assert (fuse_depth(torch.full((3, SIZE, SIZE), hole), k, pose, GRID) == UNKNOWN).all()


def test_points_fall_into_the_voxels_whose_centres_they_are() -> None:
    centres = torch.from_numpy(GRID.centres())
    assert (rows_of(centres, GRID) == torch.arange(GRID.count)).all()
    assert (rows_of(centres + torch.tensor([0.0, 0.0, 1.0]), GRID) == -1).all()
    assert rows_of(torch.tensor([-0.51, 0.0, 0.1]), GRID) == -1


@pytest.mark.parametrize("views", [1, 2])
def test_a_camera_too_few_is_named(views: int) -> None:
    k, pose = cameras(*AROUND)
    with pytest.raises(WamError, match="one camera for each depth picture"):
        fuse_depth(torch.ones(3, SIZE, SIZE), k[:views], pose, GRID)


def test_a_grid_without_size_is_refused() -> None:
    k, pose = cameras(*AROUND)
    with pytest.raises(WamError, match="voxels of positive size"):
        fuse_depth(torch.ones(3, SIZE, SIZE), k, pose, VoxelConfig(side=0.0))


def test_a_voxel_has_the_mean_colour_of_the_pixels_that_met_it() -> None:
    k, pose = cameras(*AROUND)
    depth = seen_depth(k, pose)
    points = unproject(depth.nan_to_num(0, 0, 0), k, pose).reshape(3, SIZE, SIZE, 3)
    red = torch.tensor([200, 10, 10], dtype=torch.uint8)
    pictures = torch.full((3, SIZE, SIZE, 3), 90, dtype=torch.uint8)
    pictures[points[..., 2] > 0.01] = red  # the box on a grey floor
    painted = fuse_colours(pictures, depth, k, pose, GRID)
    fused = fuse_depth(depth, k, pose, GRID)
    assert ((painted[..., 3] == 255) == (fused == OCCUPIED)).all()
    assert (painted[fused != OCCUPIED] == 0).all()
    high = fused[:, :, 1:] == OCCUPIED
    assert (painted[:, :, 1:][high][:, :3] == red).all()
    low = painted[:, :, 0][fused[:, :, 0] == OCCUPIED][:, :3]
    assert ((low == 90).all(1) | (low == red).all(1)).double().mean() > 0.9  # few hold both, and have a colour between
    pictures[1] = 30  # of two pixels of different colours in one voxel, the mean
    mixed = fuse_colours(pictures, depth, k, pose, GRID)[:, :, 1:][high][:, 0]
    assert ((mixed >= 30) & (mixed <= 200)).all()
    assert ((mixed > 30) & (mixed < 200)).any()


def test_pictures_of_another_size_than_the_depth_are_refused() -> None:
    k, pose = cameras(*AROUND)
    with pytest.raises(WamError, match="size of the depth"):
        fuse_colours(torch.zeros(3, 8, 8, 3, dtype=torch.uint8), torch.ones(3, SIZE, SIZE), k, pose, GRID)
