import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.simulation.cameras import VIEWS, Camera, choose_cameras

place = st.tuples(*[st.floats(-2, 2)] * 3)


@given(position=place, forward=place, fovy=st.floats(10, 120), depth=st.floats(0.1, 5))
def test_a_point_on_a_pixel_s_ray_projects_onto_that_pixel(position, forward, fovy, depth):
    if np.linalg.norm(np.cross(forward, (0, 0, 1))) < 0.05:
        return
    camera = Camera(
        name="any",
        position=position,
        look_at=tuple(np.add(position, forward)),
        fovy=fovy,
        width=20,
        height=12,
    )
    points = np.asarray(position) + depth * camera.rays()
    pixels, depths = camera.project(points)
    columns, rows = np.meshgrid(np.arange(20), np.arange(12))
    np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=-1), atol=1e-6)
    np.testing.assert_allclose(depths, depth)


def test_extrinsics_are_a_rotation_with_y_down_and_z_forward():
    for camera in VIEWS.values():
        pose = camera.extrinsics
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        assert pose[:3, 2] @ np.subtract(camera.look_at, camera.position) > 0
        assert pose[:3, 1] @ np.asarray(camera.up) < 0


def test_a_misspelt_camera_names_the_nearest_one():
    with pytest.raises(WamError, match="did you mean 'side'"):
        choose_cameras(["sid"], image_size=8)


def test_cameras_take_the_wanted_size_as_height_and_width():
    (camera,) = choose_cameras(["top"], image_size=(10, 30))
    assert (camera.height, camera.width) == (10, 30)


@pytest.mark.parametrize("wrong", [{"up": (1.0, 0.0, 0.0)}, {"fovy": 180.0}, {"width": 0}])
def test_impossible_cameras_are_refused(wrong):
    with pytest.raises(WamError):
        Camera(name="odd", position=(0, 0, 0), look_at=(1, 0, 0), **wrong)


@pytest.mark.parametrize("amount", [5.0, 20.0])
@pytest.mark.parametrize("name", sorted(VIEWS))
def test_a_moved_camera_stands_and_looks_as_far_off_as_asked(name, amount):
    before = VIEWS[name]
    after = before.moved(metres=amount / 100, degrees=amount)
    assert np.linalg.norm(np.subtract(after.position, before.position)) == pytest.approx(amount / 100)
    forward = [camera.extrinsics[:3, 2] for camera in (before, after)]
    assert np.degrees(np.arccos(forward[0] @ forward[1])) == pytest.approx(amount, abs=1e-6)
    assert before.moved(metres=0, degrees=0).extrinsics == pytest.approx(before.extrinsics)
    assert after == before.moved(metres=amount / 100, degrees=amount)
    assert after != before.moved(metres=amount / 100, degrees=amount, seed=1)
