"""Labels beside a dataset: written whole, read back, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.toy_episodes import write_toy
from wam.contracts import WamError
from wam.data.labels import OCCUPANCY, Labels, has_colours, pack_colours, pack_voxels, unpack_voxels
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec

SHAPE = (3, 2, 5)
ABOUT = {"grid": {"shape": list(SHAPE), "origin": [0.0, 0.0, 0.0], "side": 0.1}, "from": "geoms"}


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(write_toy(tmp_path / "toy"))


def fill(store: EpisodeStore) -> dict[int, np.ndarray]:
    """Random voxels for every episode, written as its labels."""
    labels, rng = Labels(store.root, OCCUPANCY, about=ABOUT), np.random.default_rng(0)
    grids = {}
    for index in range(len(store)):
        episode = store.episode(index)
        grids[index] = rng.random((episode.length, *SHAPE)) < 0.3
        labels.write(episode, {"filled": pack_voxels(grids[index])})
    return grids


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_packed_voxels_unpack_to_themselves(frames: int, x: int, y: int, z: int) -> None:
    grid = np.random.default_rng(x * y * z).random((frames, x, y, z)) < 0.5
    packed = pack_voxels(grid)
    assert packed.shape == (frames, -(-x * y * z // 8))
    assert (unpack_voxels(packed, (x, y, z)) == grid).all()


def test_windows_give_the_grid_at_the_present_and_at_frames_to_come(store: EpisodeStore) -> None:
    grids = fill(store)
    dataset = WindowDataset(store, WindowSpec(future=(1, 3), chunk=2, occupancy=True))
    for index in (0, 4, len(dataset) - 1):
        episode, frame = dataset.episode_of(index)
        found = dataset.batch([index]).occupancy
        assert found is not None
        assert tuple(found.shape) == (1, 3, *SHAPE)
        last = episode.length - 1
        for slot, offset in enumerate((0, 1, 3)):
            assert (found[0, slot].numpy() == grids[episode.index][min(frame + offset, last)]).all()


def paint(store: EpisodeStore) -> dict[int, np.ndarray]:
    """The same with random colours of some of what is filled."""
    labels, rng = Labels(store.root, OCCUPANCY, about={**ABOUT, "colour": True}), np.random.default_rng(1)
    colours = {}
    for index in range(len(store)):
        episode = store.episode(index)
        filled = rng.random((episode.length, *SHAPE)) < 0.5
        painted = rng.integers(0, 256, (*filled.shape, 4), np.uint8)
        painted[..., 3] = rng.choice([1, 2, 3, 255], filled.shape)
        colours[index] = painted * (filled & (rng.random(filled.shape) < 0.6))[..., None]
        labels.write(episode, {"filled": pack_voxels(filled), **pack_colours(colours[index])})
    return colours


def test_windows_give_the_colours_that_were_written(store: EpisodeStore) -> None:
    colours = paint(store)
    dataset = WindowDataset(store, WindowSpec(future=(1, 3), chunk=2, occupancy=True, colour=True))
    rows = [0, len(dataset) - 1, 4]  # in no order, so that a frame's own colours must be found
    found = dataset.batch(rows).occupancy_colour
    assert found is not None
    assert tuple(found.shape) == (3, 3, *SHAPE, 4)
    for place, index in enumerate(rows):
        episode, frame = dataset.episode_of(index)
        for slot, offset in enumerate((0, 1, 3)):
            assert (found[place, slot].numpy() == colours[episode.index][min(frame + offset, episode.length - 1)]).all()
    assert WindowDataset(store, WindowSpec(occupancy=True)).batch([0]).occupancy_colour is None


def test_frames_without_any_colour_are_blank(store: EpisodeStore) -> None:
    labels = Labels(store.root, OCCUPANCY, about={**ABOUT, "colour": True})
    for index in range(len(store)):
        blank = np.zeros((store.episode(index).length, *SHAPE), np.uint8)
        labels.write(
            store.episode(index), {"filled": pack_voxels(blank > 0), **pack_colours(np.stack([blank] * 4, -1))}
        )
    found = WindowDataset(store, WindowSpec(colour=True)).batch([0, 3]).occupancy_colour
    assert found is not None
    assert not found.any()


def test_colours_asked_for_of_labels_without_say_how_to_make_them(store: EpisodeStore) -> None:
    fill(store)
    assert not has_colours(store.root)
    with pytest.raises(WamError, match=r"made without; delete .* --colour"):
        WindowDataset(store, WindowSpec(occupancy=True, colour=True))


def test_windows_without_frames_to_come_give_the_present(store: EpisodeStore) -> None:
    fill(store)
    found = WindowDataset(store, WindowSpec(future=(), occupancy=True)).batch([0, 1]).occupancy
    assert found is not None
    assert tuple(found.shape) == (2, 1, *SHAPE)


def test_labels_that_were_never_made_say_how(store: EpisodeStore) -> None:
    with pytest.raises(WamError, match="wam data label"):
        WindowDataset(store, WindowSpec(occupancy=True))


def test_an_episode_without_labels_is_named_and_found_missing(store: EpisodeStore) -> None:
    fill(store)
    (store.root / "labels" / OCCUPANCY / "episode-000001.npz").unlink()
    labels = Labels(store.root, OCCUPANCY)
    assert [episode.index for episode in labels.missing(store)] == [1]
    with pytest.raises(WamError, match="episode 1"):
        WindowDataset(store, WindowSpec(occupancy=True))


def test_another_grid_is_refused(store: EpisodeStore) -> None:
    fill(store)
    with pytest.raises(WamError, match="other grid"):
        Labels(store.root, OCCUPANCY, about={**ABOUT, "grid": {**ABOUT["grid"], "side": 0.2}})


def test_a_damaged_file_is_named(store: EpisodeStore) -> None:
    fill(store)
    path = store.root / "labels" / OCCUPANCY / "episode-000000.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(WamError, match=r"episode-000000\.npz"):
        Labels(store.root, OCCUPANCY).read(store.episode(0))


def test_a_damaged_description_is_named(store: EpisodeStore) -> None:
    fill(store)
    (store.root / "labels" / OCCUPANCY / "about.json").write_text("{")
    with pytest.raises(WamError, match=r"about\.json"):
        Labels(store.root, OCCUPANCY)


def test_labels_of_another_length_are_refused(store: EpisodeStore) -> None:
    labels = Labels(store.root, OCCUPANCY, about=ABOUT)
    with pytest.raises(WamError, match="frames for episode 0"):
        labels.write(store.episode(0), {"filled": np.zeros((store.episode(0).length + 1, 4), np.uint8)})
