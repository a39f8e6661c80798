"""Occupancy labels of a collected dataset: what the geoms fill at each recorded state, resumed where it stopped."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, generate_binary_structure

from wam.contracts import WamError
from wam.data.depth_labels import label_from_depth
from wam.data.labels import OCCUPANCY, unpack_voxels
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec
from wam.geometry.grid import FREE, OCCUPIED, UNKNOWN, VoxelConfig
from wam.geometry.surface import GROUND, OBJECT, ROBOT
from wam.simulation.collect import collect
from wam.simulation.config import CollectConfig
from wam.simulation.environment import make_environment
from wam.simulation.label import label_occupancy

GRID = VoxelConfig(shape=[12, 12, 10], origin=[-0.3, 0.4, 0.0], side=0.05)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = CollectConfig(
        environments=("metaworld/drawer-open-v3",), episodes=0, play_episodes=2, play_steps=6, image_size=8, processes=1
    )
    return collect(config, tmp_path_factory.mktemp("labelled") / "data", progress=lambda *_: None).root


def test_every_frame_is_labelled_with_what_its_state_fills(root: Path, environment) -> None:
    calls: list[tuple[int, int]] = []
    labels = label_occupancy(root, GRID, processes=1, progress=lambda *done: calls.append(done))
    assert calls == [(0, 2), (1, 2), (2, 2)]
    store, env = EpisodeStore(root), environment("metaworld/drawer-open-v3")
    episode = store.episode(1)
    grid = unpack_voxels(labels.read(episode)["filled"], tuple(GRID.shape))
    env.reset(0)
    env.set_state(store.column("sim.state", episode)[4].astype(np.float64))
    assert (grid[4] == env.occupied(GRID)).all()
    assert 0.01 < grid.mean() < 0.5
    assert (grid[0] != grid[5]).any()  # the hand moved


def test_it_goes_on_with_what_is_missing_and_two_processes_give_the_same(root: Path) -> None:
    labels = label_occupancy(root, GRID, processes=1)
    files = sorted((root / "labels" / OCCUPANCY).glob("*.npz"))
    before = [path.read_bytes() for path in files]
    times = files[1].stat().st_mtime_ns
    files[0].unlink()
    label_occupancy(root, GRID, processes=1)
    assert files[1].stat().st_mtime_ns == times
    for path in files:
        path.unlink()
    label_occupancy(root, GRID, processes=2)
    assert [unpacked(path) for path in files] == [unpacked_bytes(data) for data in before]
    assert labels.about["grid"]["shape"] == GRID.shape


def unpacked(path: Path) -> bytes:
    return unpacked_bytes(path.read_bytes())


def unpacked_bytes(data: bytes) -> bytes:
    return np.load(io.BytesIO(data), allow_pickle=False)["filled"].tobytes()


def test_another_grid_beside_the_first_is_refused(root: Path) -> None:
    label_occupancy(root, GRID, processes=1)
    with pytest.raises(WamError, match="other grid"):
        label_occupancy(root, VoxelConfig(), processes=1)


def test_fewer_processes_than_none_are_refused(root: Path) -> None:
    with pytest.raises(WamError, match="at least 0"):
        label_occupancy(root, GRID, processes=-1)


def test_a_flat_world_has_no_voxels(environment) -> None:
    env = environment("pusht/pusht")
    with pytest.raises(WamError, match="three dimensions"):
        env.occupied(GRID)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = CollectConfig(
        environments=("metaworld/drawer-open-v3",), episodes=0, play_episodes=1, play_steps=4, depth=True, processes=1
    )
    return collect(config, tmp_path_factory.mktemp("deep") / "data", progress=lambda *_: None).root


def test_depth_is_collected_as_the_cameras_measure_it(deep: Path) -> None:
    store = EpisodeStore(deep)
    env = make_environment("metaworld/drawer-open-v3", depth=True)
    env.reset(0)
    env.set_state(store.column("sim.state", 0)[2].astype(np.float64))
    seen = env.observe()
    env.close()
    assert seen.depth is not None
    for camera in store.cameras:
        there = seen.depth[camera] > 0
        apart = np.abs(store.depth(camera, 0)[2] - seen.depth[camera])
        assert apart[there].max() < 2e-3
        assert there.mean() > 0.5


def test_labels_from_depth_are_part_of_the_exact_ones(deep: Path) -> None:
    store = EpisodeStore(deep)
    seen = label_from_depth(deep, GRID)
    assert seen.about["from"] == "depth"
    windows = WindowDataset(store, WindowSpec(future=(2,), chunk=2, occupancy=True, geometry=True))
    found = windows.batch([0, 1]).occupancy
    assert found is not None
    env = make_environment("metaworld/drawer-open-v3", image_size=8)
    env.reset(0)
    for row, frame in ((0, 0), (1, 1)):
        env.set_state(store.column("sim.state", 0)[frame].astype(np.float64))
        exact, grid = env.occupied(GRID), found[row, 0].numpy()
        near = binary_dilation(exact, np.ones((3, 3, 3), bool))
        assert near[grid == OCCUPIED].mean() > 0.97  # a surface may fall on the other side of a voxel's face
        assert exact[grid == FREE].mean() < 0.03
        assert (grid == OCCUPIED).sum() > 50
        assert (grid == UNKNOWN)[exact].any()  # what no camera sees: the inside of things
    env.close()


def test_colours_are_those_of_the_geoms_on_the_surface_and_nowhere_else(deep: Path, tmp_path: Path) -> None:
    root = shutil.copytree(deep, tmp_path / "painted", ignore=shutil.ignore_patterns("labels"))
    labels = label_occupancy(root, GRID, colour=True, processes=1)
    assert labels.about["colour"]
    store = EpisodeStore(root)
    batch = WindowDataset(store, WindowSpec(future=(2,), chunk=2, colour=True)).batch([1])
    found, filled = batch.occupancy_colour.numpy()[0], batch.occupancy.numpy()[0] == OCCUPIED  # type: ignore[union-attr]
    env = make_environment("metaworld/drawer-open-v3", image_size=8)
    env.reset(0)
    for slot, frame in enumerate((1, 3)):
        env.set_state(store.column("sim.state", 0)[frame].astype(np.float64))
        painted, occupied = env.painted(GRID), env.occupied(GRID)
        assert (filled[slot] == occupied).all()
        assert ((painted[..., 3] > 0) == occupied).all()
        shown = found[slot, ..., 3] > 0
        assert (found[slot][shown] == painted[shown]).all()
        assert (found[slot][~shown] == 0).all()
        hidden = occupied & ~shown
        assert hidden.any()
        assert binary_erosion(occupied, generate_binary_structure(3, 1))[hidden].all()
    env.close()
    assert len(np.unique(found[0][found[0, ..., 3] > 0], axis=0)) > 4  # table, wall, arm, fingers, drawer


def test_voxels_say_whether_they_are_robot_object_or_ground(environment) -> None:
    env = environment("metaworld/drawer-open-v3")
    env.reset(0)
    grid = VoxelConfig()
    kinds, centres = env.painted(grid)[..., 3], grid.centres().reshape(*grid.shape, 3)

    def around(place: np.ndarray, metres: float) -> np.ndarray:
        return kinds[np.linalg.norm(centres - place, axis=-1) < metres]

    assert (around(env.hand_position, 0.06) == ROBOT).sum() > 5
    assert (around(env._env.data.body("drawer_link").xpos, 0.15) == OBJECT).sum() > 50
    assert (kinds[:, :, 0] == GROUND).mean() > 0.5
    assert set(np.unique(kinds)) == {0, ROBOT, OBJECT, GROUND}


def test_colours_from_depth_are_those_of_the_pixels_and_near_the_exact_ones(deep: Path, tmp_path: Path) -> None:
    root = shutil.copytree(deep, tmp_path / "painted", ignore=shutil.ignore_patterns("labels"))
    label_from_depth(root, GRID, colour=True)
    batch = WindowDataset(EpisodeStore(root), WindowSpec(future=(2,), chunk=2, colour=True)).batch([0])
    assert batch.occupancy is not None
    assert batch.occupancy_colour is not None
    seen, filled = batch.occupancy_colour[0, 0].numpy(), batch.occupancy[0, 0].numpy() == OCCUPIED
    assert ((seen[..., 3] > 0) == filled).all()
    env = make_environment("metaworld/drawer-open-v3", image_size=8)
    env.reset(0)
    env.set_state(EpisodeStore(root).column("sim.state", 0)[0].astype(np.float64))
    painted = env.painted(GRID)
    env.close()
    both = filled & (painted[..., 3] > 0)
    ours, true = (colours[both][:, :3].astype(float) for colours in (seen, painted))
    assert np.abs(ours - true).mean() < 0.6 * np.abs(true - true.mean(0)).mean()  # pixels are lit, and mix neighbours


def test_labels_without_colour_are_not_continued_with_it(root: Path, deep: Path) -> None:
    label_occupancy(root, GRID, processes=1)
    with pytest.raises(WamError, match="other colour"):
        label_occupancy(root, GRID, colour=True, processes=1)
    label_from_depth(deep, GRID)
    with pytest.raises(WamError, match="other colour"):
        label_from_depth(deep, GRID, colour=True)


def test_labels_made_one_way_are_not_mixed_with_the_other(deep: Path, root: Path) -> None:
    label_from_depth(deep, GRID)
    with pytest.raises(WamError, match=r"other .*from"):
        label_occupancy(deep, GRID, processes=1)
    with pytest.raises(WamError, match="dataset with depth"):
        label_from_depth(root, GRID)
