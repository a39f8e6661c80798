"""Real and rendered RGB-D frames: what one picture measured, the next one sees in the same place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from wam.geometry.cameras import check_cameras, in_picture, project, unproject
from wam.geometry.grid import VoxelConfig
from wam.geometry.voxels import FREE, OCCUPIED, fuse_colours, fuse_depth

DATA = Path(os.environ.get("WAM_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "rgbd"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="set WAM_DATA to the real recordings")

Frames = tuple[Tensor, Tensor, Tensor]
"""Depth (N, H, W) in metres, intrinsics (N, 3, 3), extrinsics (N, 4, 4)."""


def turn(x: float, y: float, z: float, w: float) -> Tensor:
    """The rotation of a quaternion."""
    x, y, z, w = np.array([x, y, z, w]) / np.linalg.norm([x, y, z, w])
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )


def pose(place: list[float], rotation: list[float]) -> Tensor:
    found = torch.eye(4, dtype=torch.float64)
    found[:3, :3], found[:3, 3] = turn(*rotation), torch.tensor(place, dtype=torch.float64)
    return found


def pinhole(k: dict[str, float]) -> Tensor:
    return torch.tensor([[k["fx"], 0, k["cx"]], [0, k["fy"], k["cy"]], [0, 0, 1]], dtype=torch.float64)


def read_depth(path: Path, unit: float) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(path)).astype(np.float64) * unit)


@pytest.fixture(scope="module")
def living_room() -> Frames:
    """Rendered; its pictures are upside down in OpenCV's terms, which the negative fy says."""
    folder = DATA / "slambook2_ch12"
    k = json.loads((folder / "intrinsics.json").read_text())
    rows = np.loadtxt(folder / "pose.txt").tolist()
    depth = torch.stack([read_depth(folder / "depth" / f"{i}.png", 1 / k["depth_scale"]) for i in range(1, 6)])
    return depth, pinhole(k).expand(5, 3, 3), torch.stack([pose(row[:3], row[3:]) for row in rows])


@pytest.fixture(scope="module")
def kitchen() -> Frames:
    """From glasses that a person wore; y points up, and the floor is at 0."""
    folder = DATA / "aria_adt"
    meta = json.loads((folder / "meta.json").read_text())
    poses = []
    for frame in meta["frames"][:2]:
        device = {name.split("_")[0]: value for name, value in frame["world_device"].items()}
        world = pose([device[f"t{a}"] for a in "xyz"], [device[f"q{a}"] for a in "xyzw"])
        poses.append(world @ torch.tensor(frame["T_device_camera"], dtype=torch.float64))
    depth = torch.stack([read_depth(folder / f"depth_{i}.png", 1e-3) for i in range(2)])
    return depth, pinhole(meta["K"]).expand(2, 3, 3), torch.stack(poses)


def agreement(frames: Frames, one: int, other: int, tolerance: float) -> float:
    """Of what one picture measured and another should see, the share measured there at the same place; 0 of nothing."""
    depth, intrinsics, extrinsics = frames
    pixels, far = project(unproject(depth[one], intrinsics[one], extrinsics[one]), intrinsics[other], extrinsics[other])
    seen = in_picture(pixels, far, (depth.shape[1], depth.shape[2]))
    column, row = pixels[seen].round().long().unbind(-1)
    same = (far[seen] - depth[other, row, column]).abs() < tolerance
    return int(same.sum()) / max(1, len(same))


def test_a_rendered_room_agrees_with_itself(living_room: Frames) -> None:
    check_cameras(*living_room[1:])
    pairs = [(0, 2), (0, 3), (0, 4), (1, 3), (2, 0), (3, 1), (4, 0)]  # those that look at the same side of things
    assert min(agreement(living_room, *pair, 0.03) for pair in pairs) > 0.75
    depth, intrinsics, extrinsics = living_room
    upright = intrinsics.clone()
    upright[:, 1, 1] *= -1
    assert max(agreement((depth, upright, extrinsics), *pair, 0.03) for pair in pairs) < 0.5
    inverted = (depth, intrinsics, torch.linalg.inv(extrinsics))
    assert max(agreement(inverted, *pair, 0.03) for pair in pairs) < 0.5


def test_a_persons_view_agrees_with_itself_and_stands_on_its_floor(kitchen: Frames) -> None:
    check_cameras(*kitchen[1:])
    assert agreement(kitchen, 0, 1, 0.01) > 0.9
    lowest = unproject(kitchen[0][0], kitchen[1][0], kitchen[2][0])[:, 1].quantile(0.01)
    assert abs(lowest) < 0.02


def test_a_room_becomes_voxels(living_room: Frames) -> None:
    depth, intrinsics, extrinsics = living_room
    grid = VoxelConfig(shape=[60, 40, 60], origin=[-3.0, -2.0, -3.0], side=0.1)
    fused = fuse_depth(depth, intrinsics, extrinsics, grid)
    again = fuse_depth(depth[:1], intrinsics[:1], extrinsics[:1], grid)
    assert (fused == OCCUPIED).sum() > (again == OCCUPIED).sum() > 300
    assert (fused == FREE).sum() > 5 * (fused == OCCUPIED).sum()
    alone = fuse_depth(depth[3:4], intrinsics[3:4], extrinsics[3:4], grid)
    both = (again != 2) & (alone != 2)
    assert both.sum() > 300
    assert (again[both] == alone[both]).double().mean() > 0.9


def test_two_looks_at_a_kitchen_paint_the_same_voxels_alike(kitchen: Frames) -> None:
    """Light and exposure differ a little; voxels of other places differ a lot."""
    depth, intrinsics, extrinsics = kitchen
    grid = VoxelConfig(shape=[80, 40, 80], origin=[-4.0, 0.0, -4.0], side=0.1)
    pictures = [
        torch.from_numpy(np.asarray(Image.open(DATA / "aria_adt" / f"rgb_{i}.png").convert("RGB"))) for i in (0, 1)
    ]
    one, other = (
        fuse_colours(pictures[i][None], depth[i : i + 1], intrinsics[:1], extrinsics[i : i + 1], grid) for i in (0, 1)
    )
    both = (one[..., 3] > 0) & (other[..., 3] > 0)
    assert both.sum() > 300
    a, b = one[both][:, :3].double() / 255, other[both][:, :3].double() / 255
    elsewhere = b[torch.randperm(len(b), generator=torch.Generator().manual_seed(0))]
    assert (a - b).abs().mean() < 0.4 * (a - elsewhere).abs().mean()
