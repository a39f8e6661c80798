import mujoco
import numpy as np
import pytest
import torch

from wam.contracts import WamError
from wam.geometry.cameras import in_picture, project, unproject
from wam.geometry.grid import VoxelConfig
from wam.geometry.voxels import FREE, OCCUPIED, UNKNOWN, fuse_depth
from wam.simulation.cameras import Camera
from wam.simulation.raycast import Marker, RayCaster

SCENE = """
<mujoco><worldbody>
  <geom name="floor" type="plane" size="3 3 .1" rgba=".5 .5 .5 1"/>
  <body name="cube" pos="0 0 .2"><freejoint/><geom type="box" size=".2 .2 .2" rgba="1 0 0 1"/></body>
  <body name="post" pos="1 0 0"><geom type="box" size=".1 .1 .5" rgba="0 0 1 1"/></body>
  <body name="tool" mocap="true" pos="0 0 1"><geom type="sphere" size=".02" rgba="0 1 0 0"/></body>
  <body name="glass" pos="0 0 1"><geom type="box" size=".3 .3 .01" rgba="1 1 1 .1"/></body>
</worldbody></mujoco>
"""
OBLIQUE = Camera(name="oblique", position=(-2, -1, 2), look_at=(0, 0, 0.1), fovy=50, width=40, height=30)
ABOVE = Camera(name="above", position=(0, 0, 3), look_at=(0, 0, 0), up=(0, 1, 0), fovy=40, width=41, height=41)


@pytest.fixture
def scene():
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data, RayCaster(model, data, [OBLIQUE, ABOVE])


def test_depth_of_a_plane_is_what_geometry_says(scene):
    _, _, caster = scene
    picture = caster.render("oblique")
    rays = OBLIQUE.rays()
    with np.errstate(divide="ignore"):
        truth = -OBLIQUE.position[2] / rays[..., 2]  # where the ray meets z = 0
    floor = picture.segmentation == 0
    assert floor.mean() > 0.3
    np.testing.assert_allclose(picture.depth[floor], truth[floor], rtol=1e-5)


def test_depth_and_segmentation_of_a_box_seen_from_above(scene):
    _, _, caster = scene
    picture = caster.render("above")
    assert picture.segmentation[20, 20] == 1
    assert picture.depth[20, 20] == pytest.approx(3 - 0.4, abs=1e-5)  # the glass above it is seen through
    wide = 0.2 * ABOVE.intrinsics[0, 0] / 2.6
    assert (picture.segmentation == 1).sum() == pytest.approx((2 * wide) ** 2, rel=0.15)


def test_nothing_has_depth_zero_and_no_segment(scene):
    model, data, _ = scene
    up = Camera(name="up", position=(0, 0, 3), look_at=(0, 1, 6))
    picture = RayCaster(model, data, [up]).render("up")
    assert (picture.depth == 0).all()
    assert (picture.segmentation == -1).all()


def test_a_marker_is_drawn_before_and_hidden_behind_things(scene):
    model, _, caster = scene
    shown = caster.render("above", markers=[Marker(position=(0, 0, 0.6), radius=0.1)])
    assert shown.segmentation[20, 20] == model.ngeom
    assert shown.depth[20, 20] == pytest.approx(3 - 0.7, abs=1e-5)
    assert shown.rgb[20, 20].argmax() == 1
    hidden = caster.render("above", markers=[Marker(position=(0, 0, 0.2), radius=0.1)])
    np.testing.assert_array_equal(hidden.rgb, caster.render("above").rgb)


def test_things_that_cannot_move_are_drawn_where_the_model_puts_them_now(scene):
    model, data, caster = scene
    before = caster.render("above").segmentation
    model.body("post").pos = [-1, 0, 0]
    mujoco.mj_forward(model, data)
    after = caster.render("above").segmentation
    np.testing.assert_array_equal(after == 2, (before == 2)[:, ::-1])
    assert (after == 2).any()


def test_what_cannot_move_is_cast_once_while_an_unseen_tool_moves(scene, monkeypatch):
    model, data, caster = scene
    cast, everything = caster._cast, []

    def counted(origin, rays, *, fixed_too=True):
        everything.append(fixed_too)
        return cast(origin, rays, fixed_too=fixed_too)

    monkeypatch.setattr(caster, "_cast", counted)
    for height in (1.0, 1.1, 1.2):
        data.mocap_pos[0] = (0, 0, height)
        mujoco.mj_forward(model, data)
        caster.render("oblique")
    assert sum(everything) == 2  # a ray a pixel, and the finer ones of the edges


def test_smoothing_changes_colours_at_edges_only(scene):
    model, data, caster = scene
    plain = RayCaster(model, data, [OBLIQUE], antialias=False).render("oblique")
    smooth = caster.render("oblique")
    np.testing.assert_array_equal(plain.depth, smooth.depth)
    np.testing.assert_array_equal(plain.segmentation, smooth.segmentation)
    changed = (plain.rgb != smooth.rgb).any(axis=-1)
    segment = np.pad(plain.segmentation, 1, mode="edge")
    inner = np.all(
        [segment[1 + r : 31 + r, 1 + c : 41 + c] == plain.segmentation for r, c in ((0, 1), (0, -1), (1, 0), (-1, 0))],
        axis=0,
    )
    assert changed.any()
    assert not (changed & inner).any()


def test_faces_of_a_box_differ_in_brightness(scene):
    _, _, caster = scene
    picture = caster.render("oblique")
    shades = np.unique(picture.rgb[picture.segmentation == 1][:, 0])
    assert shades.max() - shades.min() > 25


def test_a_long_wall_under_the_camera_is_seen_whole():
    wall = '<geom type="box" pos="0 .4 .1" size="1.5 .02 .1"/>'
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{wall}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    picture = RayCaster(model, data, [ABOVE]).render("above")
    (_, row), _ = ABOVE.project(np.array([0, 0.4, 0.2]))
    assert (picture.segmentation[round(row)] == 0).all()


def test_rendering_changes_no_physics(scene):
    model, data, caster = scene
    before = data.qpos.copy(), model.geom_aabb.copy(), model.geom_group[:3].copy()
    caster.render("above")
    for old, new in zip(before, (data.qpos, model.geom_aabb, model.geom_group[:3]), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_unknown_camera_is_named(scene):
    with pytest.raises(WamError, match="nowhere"):
        scene[2].render("nowhere")


def depths_and_cameras(caster, cameras):
    """Depth (V, H, W), intrinsics and extrinsics of cameras of one size."""
    depth = np.stack([caster.render(camera.name).depth for camera in cameras])
    matrices = [np.stack([getattr(camera, name) for camera in cameras]) for name in ("intrinsics", "extrinsics")]
    return [torch.from_numpy(x.astype(np.float64)) for x in (depth, *matrices)]


def test_depth_unprojects_onto_the_cube_and_the_floor(scene):
    depth, intrinsics, extrinsics = depths_and_cameras(scene[2], [OBLIQUE])
    points = unproject(depth[0], intrinsics[0], extrinsics[0])
    seen = scene[2].render("oblique").segmentation.ravel()
    assert points[seen == 0, 2].abs().max() < 1e-5
    on_cube = points[seen == 1] - torch.tensor([0, 0, 0.2])
    assert len(on_cube) > 20
    torch.testing.assert_close(on_cube.abs().amax(1), torch.full((len(on_cube),), 0.2, dtype=torch.float64))
    pixels, far = project(points, intrinsics[0], extrinsics[0])
    assert in_picture(pixels[seen >= 0], far[seen >= 0], (30, 40)).all()


def test_fused_depth_finds_the_cube(scene):
    model, data, _ = scene
    around = [
        Camera(name=name, position=position, look_at=(0, 0, 0.1), fovy=50, width=120, height=120)
        for name, position in (("left", (-2, -1, 2)), ("right", (1.5, 2, 2)), ("behind", (0.5, -2, 2)))
    ]
    grid = VoxelConfig(shape=[12, 12, 8], origin=[-0.6, -0.6, -0.05], side=0.1)
    fused = fuse_depth(*depths_and_cameras(RayCaster(model, data, around), around), grid)
    assert (fused[4:8, 4:8, 4] == OCCUPIED).all()  # the top, at z = 0.4, in voxels from 0.35 to 0.45
    assert (fused[5:7, 5:7, 1:4] == UNKNOWN).all()
    assert (fused[:, :, 5:] == FREE).all()
