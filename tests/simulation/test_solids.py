"""What geoms fill: volumes of known shapes, a mesh, poses, and agreement with what cameras see."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from wam.contracts import WamError
from wam.geometry.grid import VoxelConfig
from wam.geometry.voxels import FREE, fuse_depth
from wam.simulation.cameras import VIEWS
from wam.simulation.solids import Solids

GRID = VoxelConfig(shape=[40, 40, 40], origin=[-0.5, -0.5, -0.5], side=0.025)
SHAPES = {
    "sphere": ('type="sphere" size=".3"', 4 / 3 * np.pi * 0.3**3),
    "capsule": ('type="capsule" size=".15 .2"', np.pi * 0.15**2 * 0.4 + 4 / 3 * np.pi * 0.15**3),
    "cylinder": ('type="cylinder" size=".2 .3"', np.pi * 0.2**2 * 0.6),
    "ellipsoid": ('type="ellipsoid" size=".2 .3 .4"', 4 / 3 * np.pi * 0.2 * 0.3 * 0.4),
    "box": ('type="box" size=".2 .3 .1"', 0.4 * 0.6 * 0.2),
    "mesh": ('type="mesh" mesh="wedge"', 0.5 * 0.6 * 0.6 * 0.4),
}
WEDGE = "-.3 -.3 -.2  .3 -.3 -.2  -.3 .3 -.2  -.3 -.3 .2  .3 -.3 .2  -.3 .3 .2"


def scene(body: str) -> tuple[mujoco.MjModel, mujoco.MjData]:
    assets = f'<asset><mesh name="wedge" vertex="{WEDGE}"/></asset>'
    model = mujoco.MjModel.from_xml_string(f"<mujoco>{assets}<worldbody>{body}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_its_volume_and_a_voxel_of_skin(shape: str) -> None:
    attributes, volume = SHAPES[shape]
    model, data = scene(f'<body pos=".01 -.02 .03" euler="20 30 40"><freejoint/><geom {attributes}/></body>')
    filled = (Solids(model, GRID).fill(data) >= 0).sum() * GRID.side**3
    assert volume < filled < 1.5 * volume


def test_every_voxel_of_a_solid_is_filled_and_none_outside() -> None:
    model, data = scene('<body pos=".05 0 0"><freejoint/><geom type="sphere" size=".3"/></body>')
    filled = Solids(model, GRID).fill(data).reshape(-1) >= 0
    away = np.linalg.norm(GRID.centres() - [0.05, 0, 0], axis=1)
    corner = 0.5 * 3**0.5 * GRID.side
    assert filled[away < 0.3].all()
    assert not filled[away > 0.3 + corner].any()


def test_a_hollow_mesh_of_two_shells_keeps_its_hole() -> None:
    from wam.simulation.solids import inside_triangles

    def cube(half: float) -> np.ndarray:
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
        quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
        return np.array([corners[list(t)] for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])

    inside = inside_triangles(np.concatenate([cube(0.4), cube(0.2)]), 0.02)
    far = np.abs(inside).max(1)
    assert len(inside) > 1000
    assert (far > 0.2).all()
    assert (far < 0.4).all()


def test_what_moves_moves_and_what_stays_is_kept() -> None:
    model, data = scene(
        '<geom type="box" size=".4 .4 .05" pos="0 0 -.4"/>'
        '<body name="ball" pos="0 0 0"><freejoint/><geom type="sphere" size=".1"/></body>'
    )
    solids = Solids(model, GRID)
    before = solids.fill(data)
    data.qpos[:3] = [0.3, 0, 0]
    mujoco.mj_forward(model, data)
    after = solids.fill(data)
    assert ((before == 0) == (after == 0)).all()
    assert (before == 1).any()
    assert not ((before == 1) & (after == 1)).any()
    assert solids._still is not None


def test_hidden_geoms_and_planes_fill_nothing() -> None:
    model, data = scene('<geom type="plane" size="1 1 .1"/><geom type="box" size=".3 .3 .3" group="3"/>')
    assert (Solids(model, GRID).fill(data) == -1).all()


def test_an_unknown_kind_is_named() -> None:
    hills = '<asset><hfield name="hills" nrow="2" ncol="2" size="1 1 1 1"/></asset>'
    xml = f'<mujoco>{hills}<worldbody><geom type="hfield" hfield="hills"/></worldbody></mujoco>'
    with pytest.raises(WamError, match="HFIELD"):
        Solids(mujoco.MjModel.from_xml_string(xml), GRID)


def test_what_cameras_see_of_a_task_is_what_its_geoms_fill(environment) -> None:
    env = environment("metaworld/drawer-open-v3", cameras=("side", "top", "oblique"), image_size=96)
    env.reset(0)
    for _ in range(20):
        env.step(np.array([0.3, -0.5, -0.4, 0.5]), render=False)
    grid = VoxelConfig()
    inside = env._env
    solid = torch.from_numpy(Solids(inside.model, grid).fill(inside.data) >= 0)
    depth = np.stack([env._renderer.render(name).depth for name in VIEWS])
    cameras = [env.views[name] for name in VIEWS]
    k, poses = (np.stack([getattr(c, name) for c in cameras]) for name in ("intrinsics", "extrinsics"))
    fused = fuse_depth(*(torch.from_numpy(np.asarray(x, np.float64)) for x in (depth, k, poses)), grid)
    seen = fused == 1
    assert seen.sum() > 300
    grown = torch.nn.functional.max_pool3d(solid[None, None].float(), 3, stride=1, padding=1)[0, 0].bool()
    assert grown[seen].double().mean() > 0.97
    assert solid[fused == FREE].double().mean() < 0.03
