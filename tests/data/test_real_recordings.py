"""Recordings of others open here and hold what their files say."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from wam.data.info import describe
from wam.data.statistics import compute_statistics
from wam.data.store import EpisodeStore
from wam.data.video import probe, read_frames
from wam.data.windows import WindowDataset, WindowSpec

CAMERA = "exterior_image_2_left"


@pytest.fixture(scope="module")
def droid(real_data):
    return real_data / "robot/cosmos_droid_lerobot_v3"


def test_a_v3_dataset_written_elsewhere_opens_value_for_value(droid):
    store = EpisodeStore(droid)
    table = pq.read_table(droid / "data/chunk-000/file-000.parquet").to_pydict()
    assert (len(store), store.total_frames, store.info.fps) == (1, 722, 15)
    for name in store.info.numeric:
        assert np.array_equal(store.column(name, 0), np.array(table[name], np.float32)), name
    assert store.has_video(CAMERA, 0)
    assert not store.has_video("wrist_image_left", 0)
    assert not store.action_free


def test_its_frames_are_the_same_by_every_decoder_and_in_any_order(droid):
    whole = EpisodeStore(droid, video_backend="decord").frames(CAMERA, 0)
    other = EpisodeStore(droid, video_backend="pyav")
    rows = np.random.default_rng(0).integers(0, 722, 40)
    found = other.frames(CAMERA, 0, rows)
    assert len(whole) == 722
    assert np.abs(found.astype(int) - whole[rows]).mean() < 1
    for row, one in zip(rows, found, strict=True):
        around = np.abs(whole[max(row - 3, 0) : row + 4].astype(int) - one).mean((1, 2, 3))
        assert around.min() == around[min(row, 3)]


def test_its_windows_and_statistics_work_without_the_missing_cameras(droid):
    store = EpisodeStore(droid)
    spec = WindowSpec(cameras=(CAMERA,), action="action.joint_position", state="observation.state.cartesian_position")
    batch = WindowDataset(store, spec, cache="none").batch([0, 300, 721])
    assert batch.images.shape == (3, 1, 1, 64, 64, 3)
    assert batch.action is not None
    assert batch.action.shape == (3, 8, 1)
    assert batch.action_mask is not None
    assert batch.action_mask[-1].tolist() == [True] + [False] * 7
    assert compute_statistics(store)["action.gripper_position"].max.tolist() == [1.0]
    assert describe(droid)["cameras"][CAMERA]["episodes"] == 1


def test_human_videos_of_many_makers_decode_exactly_and_alike(real_data):
    files = sorted((real_data / "human_video").glob("*.mp4"))[::6]
    assert files
    for path in files:
        info = probe(path)
        wanted = np.random.default_rng(0).integers(0, info.frames, 6)
        one = read_frames(path, indices=wanted, backend="pyav")
        every = read_frames(path, indices=np.arange(wanted.max() + 1), backend="pyav")
        assert np.array_equal(one, every[wanted]), path.name
