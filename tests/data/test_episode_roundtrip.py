"""What is written is read back value for value, and the files follow the format."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.toy_episodes import LENGTHS, SPACE, episode_arrays, frame_numbers, numbered_frames, write_toy
from wam.contracts import WamError
from wam.data.features import DatasetInfo
from wam.data.store import EpisodeStore
from wam.data.writer import EpisodeWriter


def test_every_column_comes_back_value_for_value_in_its_own_dtype(toy):
    for seed, length in enumerate(LENGTHS):
        for name, written in episode_arrays(seed, length)["columns"].items():
            found = toy.column(name, seed)
            assert found.dtype == written.dtype
            assert np.array_equal(found, written.reshape(found.shape))
        assert np.array_equal(toy.column("timestamp", seed), (np.arange(length) / 10).astype(np.float32))
        assert toy.column("index", seed)[0] == sum(LENGTHS[:seed])


@pytest.mark.parametrize("backend", ["auto", "decord", "pyav"])
def test_every_frame_comes_back_as_itself_from_its_own_camera_and_episode(toy_root, backend):
    store = EpisodeStore(toy_root, video_backend=backend)
    for seed, length in enumerate(LENGTHS):
        side, top = store.frames("side", seed), store.frames("top", seed, [length - 1, 0])
        assert frame_numbers(side) == list(range(1000 * seed, 1000 * seed + length))
        assert frame_numbers(top) == [1000 * seed + 500 + length - 1, 1000 * seed + 500]
        assert np.abs(side.astype(int) - episode_arrays(seed, length)["images"]["side"]).mean() < 4


def test_what_an_episode_and_its_dataset_are_comes_back(toy):
    assert len(toy) == len(LENGTHS)
    assert [episode.length for episode in toy.episodes] == list(LENGTHS)
    assert toy.episodes[2].play
    assert toy.episodes[2].task == "play"
    assert toy.episodes[3].extra == {"play": False, "success": True, "seed": 3, "environment": "toy/1"}
    assert toy.info.action_space == SPACE
    assert toy.info.cameras == ("side", "top")
    assert (toy.info.embodiment, toy.info.environment, toy.action_free) == ("toy", "toy/board", False)
    assert toy.info.features["action"].names == ["x", "y"]
    assert (toy.info.total_episodes, toy.info.total_frames) == (len(LENGTHS), sum(LENGTHS))


def test_the_files_are_those_of_lerobot_v3(toy_root):
    info = json.loads((toy_root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["fps"] == 10
    assert isinstance(info["fps"], int)
    assert info["splits"] == {"train": f"0:{len(LENGTHS)}"}
    assert info["features"]["observation.images.side"]["info"]["video.codec"] == "h264"
    tasks = pd.read_parquet(toy_root / "meta/tasks.parquet")
    assert tasks.index.name == "task"
    assert tasks.loc["play", "task_index"] == list(tasks.index).index("play")
    rows = pq.read_table(toy_root / "meta/episodes").to_pylist()
    assert [row["episode_index"] for row in rows] == list(range(len(LENGTHS)))
    needed = ["tasks", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index", "data/file_index"]
    needed += ["meta/episodes/chunk_index", "meta/episodes/file_index"]
    needed += [f"videos/observation.images.top/{end}" for end in ("chunk_index", "file_index")]
    needed += [f"videos/observation.images.top/{end}_timestamp" for end in ("from", "to")]
    needed += [f"stats/action/{name}" for name in ("min", "max", "mean", "std", "count", "q01", "q99")]
    assert set(needed) <= set(rows[0])
    assert np.shape(rows[0]["stats/observation.images.side/mean"]) == (3, 1, 1)
    for row in rows:
        path = toy_root / info["data_path"].format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        data = pq.ParquetFile(path)
        groups = [
            data.read_row_group(i, columns=["episode_index"]).column(0).unique() for i in range(data.num_row_groups)
        ]
        assert all(len(group) == 1 for group in groups), "one row group per episode"


def test_finished_files_are_packed_up_to_the_format_s_sizes_and_resuming_goes_on_after_them(tmp_path):
    root = write_toy(tmp_path / "d")
    count = {name: len(list((root / name).rglob("file-*"))) for name in ("data", "videos", "meta/episodes")}
    assert count == {"data": 1, "videos": 2, "meta/episodes": 1}
    with EpisodeWriter(root, fps=10, resume=True) as writer:
        writer.info = dataclasses.replace(writer.info, video_files_size_in_mb=0.004)
        for seed in (6, 7, 8):
            writer.add_episode(**episode_arrays(seed, 20), task="more", extra={"play": False})
    assert len(list((root / "data").rglob("*.parquet"))) == 2
    assert len(list((root / "videos").rglob("*.mp4"))) > 4, "no video file grows beyond the limit"
    store = EpisodeStore(root)
    assert [len(store), store.total_frames, len(store.tasks)] == [9, sum(LENGTHS) + 60, 4]
    for seed in range(9):
        length = store.episodes[seed].length
        assert frame_numbers(store.frames("top", seed)) == [1000 * seed + 500 + frame for frame in range(length)]
        assert np.array_equal(store.column("action", seed), episode_arrays(seed, length)["columns"]["action"])


def test_videos_of_different_encodings_are_left_apart(tmp_path):
    from wam.data.video import VideoEncoding

    for crf in (18, 30):
        with EpisodeWriter(tmp_path / "d", fps=10, resume=True, encoding=VideoEncoding(crf=crf, gop=crf)) as writer:
            writer.finalize = writer.close  # type: ignore[method-assign]
            writer.add_episode(images={"cam": numbered_frames(9, start=crf)}, columns={}, task="x")
    with EpisodeWriter(tmp_path / "d", fps=10, resume=True):
        pass
    store = EpisodeStore(tmp_path / "d")
    for episode, crf in enumerate((18, 30)):
        assert frame_numbers(store.frames("cam", episode)) == list(range(crf, crf + 9))


def test_a_dataset_without_actions_is_an_ordinary_dataset(tmp_path):
    with EpisodeWriter(tmp_path / "video", fps=15) as writer:
        writer.add_episode(images={"cam": numbered_frames(7)}, columns={}, task="wash a cup")
    store = EpisodeStore(tmp_path / "video")
    assert store.action_free
    assert frame_numbers(store.frames("cam", 0)) == list(range(7))
    assert store.statistics["observation.images.cam"].mean.shape == (3, 1, 1)


def test_an_image_of_odd_size_and_a_one_dimensional_action_survive(tmp_path):
    from wam.data.video import VideoEncoding

    frames = np.random.default_rng(0).integers(0, 255, (3, 15, 17, 3), np.uint8)
    with EpisodeWriter(tmp_path / "odd", fps=5, encoding=VideoEncoding(pix_fmt="yuv444p", crf=1)) as writer:
        writer.add_episode(images={"cam": frames}, columns={"action": np.ones((3, 1), np.float32)}, task="")
    store = EpisodeStore(tmp_path / "odd")
    assert store.column("action", 0).shape == (3, 1)
    assert np.abs(store.frames("cam", 0).astype(int) - frames).mean() < 4


def test_images_kept_in_the_data_file_are_read_too(tmp_path, toy_root):
    """LeRobot's dtype "image": encoded pictures in the parquet file."""
    root = write_toy(tmp_path / "images", lengths=(5,))
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.images.side"]["dtype"] = "image"
    (root / "meta/info.json").write_text(json.dumps(info))
    rows = []
    for frame in numbered_frames(5, start=40):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    path = next((root / "data").rglob("*.parquet"))
    pq.write_table(pq.read_table(path).append_column("observation.images.side", pa.array(rows)), path)
    assert frame_numbers(EpisodeStore(root).frames("side", 0, [4, 0])) == [44, 40]


def test_a_store_can_be_pickled_and_reads_the_same(toy):
    toy.frames("side", 1, [3])
    again = pickle.loads(pickle.dumps(toy))
    assert np.array_equal(again.frames("side", 1), toy.frames("side", 1))
    assert np.array_equal(again.column("action", 2), toy.column("action", 2))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda root: (root / "meta/info.json").unlink(), "no meta/info.json"),
        (lambda root: (root / "meta/info.json").write_text("{"), "JSON in"),
        (lambda root: (root / "meta/info.json").write_text('{"codebase_version": "v2.1"}'), "wam data convert"),
        (lambda root: next((root / "data").rglob("*.parquet")).write_bytes(b"PAR1"), "readable parquet"),
        (lambda root: next((root / "data").rglob("*.parquet")).unlink(), "no such file"),
        (lambda root: next((root / "videos").rglob("*.mp4")).unlink(), "no such file"),
        (lambda root: _flip(next((root / "videos").rglob("*.mp4"))), "differs from what was recorded"),
        (lambda root: _flip(next((root / "data").rglob("*.parquet"))), "readable parquet"),
    ],
)
def test_a_damaged_dataset_is_one_clear_sentence(tmp_path, damage, sentence):
    root = write_toy(tmp_path / "toy", lengths=(60,))
    damage(root)

    def read_everything() -> None:
        store = EpisodeStore(root, video_backend="decord")
        for camera in store.cameras:
            store.frames(camera, 0)
        for name in store.info.numeric:
            store.column(name, 0)

    with pytest.raises(WamError) as caught:
        read_everything()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def _flip(path):
    """Flip bits among a file's contents, not its headers."""
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 1500 if path.suffix == ".mp4" else 40
    for place in range(start, start + 1000, 16):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))


def test_asking_for_what_is_not_there_names_what_is(toy):
    with pytest.raises(WamError, match=r"\['side', 'top'\].*'wrist'"):
        toy.frames("wrist", 0)
    with pytest.raises(WamError, match="'acton'"):
        toy.column("acton", 0)
    with pytest.raises(WamError, match="an episode from 0 to 5"):
        toy.column("action", 6)
    with pytest.raises(WamError, match="frame numbers from 0 to 11 of episode 0"):
        toy.frames("side", 0, [12])
    with pytest.raises(WamError, match=r"'gpu'"):
        EpisodeStore(toy.root, video_backend="gpu")


def test_info_keeps_the_keys_it_does_not_know(toy_root):
    info = DatasetInfo.load(toy_root)
    other = dataclasses.replace(info, extra={**info.extra, "licence": "CC0"})
    assert DatasetInfo.from_dict(other.to_dict()) == other


def test_info_and_statistics_are_told_in_words_without_decoding(toy_root, monkeypatch):
    from wam.data import decoders, info

    monkeypatch.setattr(decoders, "open_reader", lambda *_, **__: pytest.fail("a frame was decoded"))
    found = info.describe(toy_root)
    assert (found["episodes"], found["frames"], found["play_episodes"]) == (6, sum(LENGTHS), 2)
    assert "delta at 10 Hz: x, y" in info.description_text(found)
    assert json.loads(json.dumps(found)) == found
    text = info.statistics_text(info.update_statistics(toy_root))
    assert "observation.state[2]" in text
    assert "observation.images.side[0]" in text


def test_what_a_caller_adds_to_the_header_stands_beside_our_own(tmp_path):
    with EpisodeWriter(
        tmp_path, fps=10, embodiment="toy", extra={"wam": {"source": "a camera"}, "note": "kept"}
    ) as writer:
        writer.add_episode(**episode_arrays(0, 4), task="push")
    extra = EpisodeStore(tmp_path).info.extra
    assert extra["note"] == "kept"
    assert extra["wam"] == {"source": "a camera", "embodiment": "toy"}
