"""Every format arrives in LeRobot v3.0 value for value; what is damaged or unknown is one clear sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign import moving_square, png, rlds_episode, write_lerobot_v2, write_tfrecord

from wam.contracts import ActionSpace, WamError
from wam.data.convert import FORMATS, convert, detect_format
from wam.data.store import EpisodeStore
from wam.data.video import encode_video

h5py = pytest.importorskip("h5py")


def close(recorded: np.ndarray, truth: np.ndarray) -> bool:
    """Equal up to lossy coding."""
    return bool(np.abs(recorded.astype(int) - truth.astype(int)).mean() < 4)


# LeRobot v2


def test_lerobot_v2_arrives_value_for_value(tmp_path: Path) -> None:
    source = write_lerobot_v2(tmp_path / "v2", [9, 12, 7])
    result = convert(source, tmp_path / "v3")
    store = EpisodeStore(tmp_path / "v3")
    assert (result.format, result.episodes, result.frames, result.notes) == ("lerobot_v2", 3, 28, ())
    assert (store.info.fps, store.info.robot_type, store.cameras) == (10, "toy", ("front",))
    assert store.info.features["action"].names == ["left", "right"]
    assert store.info.features["observation.state"].names == ["a", "b", "c"]
    for i, length in enumerate([9, 12, 7]):
        rng = np.random.default_rng(i)
        np.testing.assert_array_equal(store.column("observation.state", i), rng.normal(size=(length, 3)).astype("f4"))
        np.testing.assert_array_equal(store.column("action", i), rng.normal(size=(length, 2)).astype("f4"))
        assert store.episodes[i].task == f"task {i}"
        assert close(store.frames("front", i), moving_square(length, start=i))


def test_a_frame_too_many_is_trimmed_and_said(tmp_path: Path) -> None:
    result = convert(write_lerobot_v2(tmp_path / "v2", [9, 12], extra_frames=1), tmp_path / "v3")
    assert result.frames == 21
    assert len(result.notes) == 1
    assert "episode 1" in result.notes[0]
    assert "13 frames" in result.notes[0]


def test_episodes_and_cameras_without_files_are_left_out_and_said(tmp_path: Path) -> None:
    source = write_lerobot_v2(tmp_path / "v2", [9, 12, 7])
    for path in source.rglob("*000002.*"):
        path.unlink()
    info = json.loads((source / "meta/info.json").read_text())
    info["features"]["observation.images.back"] = info["features"]["observation.images.front"]
    (source / "meta/info.json").write_text(json.dumps(info))
    result = convert(source, tmp_path / "v3")
    assert result.episodes == 2
    assert any("episodes 2" in note for note in result.notes)
    assert any("back" in note for note in result.notes)


def lose_video(source: Path) -> None:
    next(source.rglob("*000001.mp4")).unlink()


def cut_video(source: Path) -> None:
    video = next(source.rglob("*000001.mp4"))
    video.write_bytes(video.read_bytes()[:900])


def short_video(source: Path) -> None:
    next(source.rglob("*000001.mp4")).write_bytes(encode_video(moving_square(4), fps=10))


def cut_table(source: Path) -> None:
    table = next(source.rglob("*000001.parquet"))
    table.write_bytes(table.read_bytes()[:300])


@pytest.mark.parametrize("damage", [lose_video, cut_video, short_video, cut_table])
def test_a_damaged_episode_stops_the_conversion_or_is_skipped_and_said(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    source = write_lerobot_v2(tmp_path / "v2", [9, 12, 7])
    damage(source)
    with pytest.raises(WamError, match="000001"):
        convert(source, tmp_path / "stopped")
    result = convert(source, tmp_path / "v3", skip_damaged=True)
    assert result.episodes == 2
    assert any("left out episode 1" in note for note in result.notes)


def test_an_interrupted_conversion_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source = write_lerobot_v2(tmp_path / "v2", [9, 12, 7])

    def interrupt(done: int, total: int) -> None:
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "v3", progress=interrupt)
    seen: list[int] = []
    result = convert(source, tmp_path / "v3", resume=True, progress=lambda done, total: seen.append(done))
    assert seen == [3]
    convert(source, tmp_path / "whole")
    resumed, whole = EpisodeStore(tmp_path / "v3"), EpisodeStore(tmp_path / "whole")
    assert result.episodes == len(resumed) == len(whole) == 3
    for i in range(3):
        np.testing.assert_array_equal(resumed.column("action", i), whole.column("action", i))
    assert convert(source, tmp_path / "v3", resume=True).episodes == 3  # nothing left to do


# RLDS


@pytest.mark.parametrize("dictionary", [False, True])
def test_rlds_arrives_value_for_value(tmp_path: Path, dictionary: bool) -> None:
    episodes = [rlds_episode(n, seed=i, dictionary=dictionary) for i, n in enumerate((5, 8))]
    write_tfrecord(tmp_path / "toy-train.tfrecord-00000-of-00001", [message for message, _ in episodes])
    result = convert(tmp_path, tmp_path / "out", fps=5)
    store = EpisodeStore(tmp_path / "out")
    assert (result.format, result.episodes) == ("rlds", 2)
    assert any("depth" in note and "language_embedding" in note for note in result.notes)
    for i, (_, truth) in enumerate(episodes):
        np.testing.assert_array_equal(store.column("observation.state", i), truth["state"])
        np.testing.assert_array_equal(store.column("action", i), truth["action"])
        assert close(store.frames("image", i), truth["image"])
        assert store.episodes[i].task == "push the square"
        assert store.column("next.done", i).ravel().tolist() == [False] * (len(truth["state"]) - 1) + [True]
    if dictionary:
        assert store.info.features["action"].names == ["rotation_0", "rotation_1", "rotation_2", "stop"]


def test_rlds_needs_a_frame_rate(tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "toy.tfrecord", [rlds_episode(4)[0]])
    with pytest.raises(WamError, match="expected the frame rate of an RLDS dataset"):
        convert(tmp_path, tmp_path / "out")


def test_a_corrupt_record_is_skipped_only_on_request(tmp_path: Path) -> None:
    path = write_tfrecord(tmp_path / "toy.tfrecord", [rlds_episode(4, seed=i)[0] for i in range(3)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(WamError, match=r"record 1 of .* wrong checksum"):
        convert(tmp_path, tmp_path / "stopped", fps=5)
    assert convert(tmp_path, tmp_path / "out", fps=5, skip_damaged=True).episodes == 2


# HDF5


def write_hdf5(path: Path, *, libero: bool, frames: np.ndarray, demos: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    length = len(frames)
    position, turn, gripper = "ee_pos", "ee_ori", "gripper_states"
    if not libero:
        position, turn, gripper = "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"
    low = {
        position: rng.normal(size=(length, 3)),
        turn: rng.normal(size=(length, 3 if libero else 4)),
        gripper: rng.normal(size=(length, 2)),
        "joint_states": rng.normal(size=(length, 7)),
    }
    truth = {**low, "actions": rng.normal(size=(length, 7)), "states": rng.normal(size=(length, 20))}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if libero:
            data.attrs["problem_info"] = json.dumps({"language_instruction": "open the drawer"})
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "env_kwargs": {"control_freq": 20, "robots": ["Panda"]}}
        )
        for i in range(demos):
            demo = data.create_group(f"demo_{i}")
            demo["actions"], demo["states"] = truth["actions"], truth["states"]
            demo["rewards"] = np.eye(length)[-1]
            demo["dones"] = np.eye(length)[-1].astype(int)
            demo["obs/agentview_rgb" if libero else "obs/agentview_image"] = frames
            for key, value in low.items():
                demo[f"obs/{key}"] = value
    return {**truth, "state": np.concatenate([low[position], low[turn], low[gripper]], axis=1)}


@pytest.mark.parametrize("libero", [True, False])
def test_hdf5_arrives_value_for_value(tmp_path: Path, libero: bool) -> None:
    frames = moving_square(6)
    truth = write_hdf5(tmp_path / "open_the_drawer_demo.hdf5", libero=libero, frames=frames)
    result = convert(tmp_path, tmp_path / "out")
    store = EpisodeStore(tmp_path / "out")
    assert (result.format, result.episodes, store.info.fps, store.info.robot_type) == ("hdf5", 2, 20, "Panda")
    assert store.cameras == ("agentview",)
    assert store.episodes[0].task == ("open the drawer" if libero else "Lift")
    np.testing.assert_array_equal(store.column("action", 1), truth["actions"].astype("f4"))
    np.testing.assert_array_equal(store.column("observation.state", 1), truth["state"].astype("f4"))
    np.testing.assert_array_equal(store.column("sim.state", 1), truth["states"])
    assert store.info.features["observation.state"].names[:3] == ["x", "y", "z"]
    assert store.episodes[0].extra["success"]
    assert close(store.frames("agentview", 0), frames)


def test_upside_down_images_are_turned_on_request(tmp_path: Path) -> None:
    frames = moving_square(6)
    write_hdf5(tmp_path / "a.hdf5", libero=True, frames=frames[:, ::-1])
    convert(tmp_path, tmp_path / "out", flip="vertical")
    assert close(EpisodeStore(tmp_path / "out").frames("agentview", 0), frames)
    with pytest.raises(WamError, match="expected flip among"):
        convert(tmp_path, tmp_path / "other", flip="sideways")  # type: ignore[arg-type]


def test_another_layout_of_hdf5_is_one_clear_sentence(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["episodes/0/actions"] = np.zeros((3, 2))
    with pytest.raises(WamError, match=r"robomimic or LIBERO.*got episodes"):
        convert(tmp_path, tmp_path / "out", fps=10)


def test_a_truncated_hdf5_file_is_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_hdf5(path, libero=True, frames=moving_square(6))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WamError, match="expected a whole HDF5 file"):
        convert(tmp_path, tmp_path / "out")


def test_rows_of_unequal_length_in_hdf5_are_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_hdf5(path, libero=True, frames=moving_square(6))
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs/ee_pos"]
        file["data/demo_1/obs/ee_pos"] = np.zeros((4, 3))
    with pytest.raises(WamError, match="with 6 rows like its actions, got 4"):
        convert(path, tmp_path / "out")


# videos


def test_a_folder_of_videos_is_an_action_free_dataset(tmp_path: Path) -> None:
    for i, length in enumerate((12, 20)):
        (tmp_path / f"clip{i}.mp4").write_bytes(encode_video(moving_square(length, start=i), fps=10))
    (tmp_path / "captions.json").write_text(json.dumps({"clip1.mp4": "a square wanders"}))
    result = convert(tmp_path, tmp_path / "out")
    store = EpisodeStore(tmp_path / "out")
    assert (result.format, result.episodes, result.frames) == ("videos", 2, 32)
    assert store.action_free
    assert [e.task for e in store.episodes] == ["", "a square wanders"]
    assert close(store.frames("video", 1), moving_square(20, start=1))


def test_videos_of_several_rates_and_sizes_are_brought_to_one(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(encode_video(moving_square(20, size=32), fps=10))
    (tmp_path / "b.mp4").write_bytes(encode_video(moving_square(20, size=64), fps=20))
    with pytest.raises(WamError, match=r"videos of one rate, got rates 10\.0, 20\.0"):
        convert(tmp_path, tmp_path / "no")
    with pytest.raises(WamError, match="videos of one size"):
        convert(tmp_path, tmp_path / "no", fps=10)
    convert(tmp_path, tmp_path / "out", fps=10, image_size=(32, 64))
    store = EpisodeStore(tmp_path / "out")
    assert [e.length for e in store.episodes] == [20, 10]
    assert store.frames("video", 0).shape[1:] == (32, 64, 3)


def test_long_videos_are_cut_into_pieces(tmp_path: Path) -> None:
    from wam.data.convert.videos import VideoFolderSource

    (tmp_path / "a.mp4").write_bytes(encode_video(moving_square(25), fps=10))
    source = VideoFolderSource(tmp_path, max_frames=10)
    assert [source[i].length for i in range(len(source))] == [10, 10, 5]
    joined = np.concatenate([source[i].images["video"] for i in range(3)])
    assert close(joined, moving_square(25))


def test_a_truncated_video_is_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(encode_video(moving_square(30), fps=10))
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(WamError, match="expected a readable video"):
        convert(tmp_path, tmp_path / "out")


def test_videos_with_annotations_keep_states_actions_and_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "0"
    folder.mkdir(parents=True)
    frames = moving_square(8)
    (folder / "left.mp4").write_bytes(encode_video(frames, fps=4))
    states = np.random.default_rng(0).normal(size=(8, 7)).astype("f4")
    raw = np.random.default_rng(1).normal(size=(22, 7)).astype("f4")  # three commands a frame
    annotation = {
        "states": states.tolist(),
        "texts": ["stack"],
        "success": 1,
        "action.cartesian_position": raw[:, :6].tolist(),
        "action.gripper_position": raw[:, 6].tolist(),
    }
    (folder / "annotation.json").write_text(json.dumps(annotation))
    convert(tmp_path / "source", tmp_path / "out")
    store = EpisodeStore(tmp_path / "out")
    np.testing.assert_array_equal(store.column("observation.state", 0), states)
    np.testing.assert_array_equal(store.column("action", 0), raw[::3])
    assert (store.info.fps, store.episodes[0].task, store.episodes[0].extra["success"]) == (4, "stack", True)


# the door


def test_the_format_is_told_from_the_files(tmp_path: Path) -> None:
    write_lerobot_v2(tmp_path / "lerobot_v2", [5])
    for name in ("rlds", "hdf5", "videos"):
        (tmp_path / name).mkdir()
    write_tfrecord(tmp_path / "rlds/x.tfrecord", [rlds_episode(3)[0]])
    write_hdf5(tmp_path / "hdf5/x.hdf5", libero=True, frames=moving_square(3))
    (tmp_path / "videos/x.mp4").write_bytes(encode_video(moving_square(3), fps=10))
    for name in ("lerobot_v2", "rlds", "hdf5", "videos"):
        assert detect_format(tmp_path / name) == name
        assert name in FORMATS


def test_sources_that_cannot_be_converted_are_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    converted = tmp_path / "v3"
    convert(write_lerobot_v2(tmp_path / "v2", [5]), converted)
    for source, options, said in (
        ("missing", {}, "no such file or folder"),
        ("empty", {}, "a known format"),
        ("v3", {}, "read directly"),
        ("v2", {"format": "parquet"}, "a format among"),
        ("v2", {"cameras": ["frnt"]}, "cameras among"),
        ("v2", {"image_size": (31, 31)}, "even sides"),
    ):
        with pytest.raises(WamError, match=said):
            convert(tmp_path / source, tmp_path / "out", **options)
    with pytest.raises(WamError, match="no dataset yet"):
        convert(tmp_path / "v2", converted)


def test_an_action_space_given_by_the_user_travels_with_the_data(tmp_path: Path) -> None:
    space = ActionSpace(names=("l", "r"), units=("m", "m"), low=(-5, -5), high=(5, 5), kind="delta", rate_hz=10)
    convert(write_lerobot_v2(tmp_path / "v2", [5]), tmp_path / "v3", action_space=space)
    store = EpisodeStore(tmp_path / "v3")
    assert store.info.action_space == space
    assert store.info.features["action"].names == ["l", "r"]


def test_real_bridge_records_and_real_v2_episodes_are_read(real_data: Path, tmp_path: Path) -> None:
    bridge = convert(real_data / "robot/octo_bridge_debug", tmp_path / "bridge", fps=5, limit=3)
    store = EpisodeStore(bridge.root)
    assert (bridge.episodes, bridge.frames, len(store.cameras)) == (3, 30, 4)
    assert store.episodes[0].task == "turn lever vertical to front"
    assert store.column("action", 0).shape == (10, 7)
    gr1 = convert(real_data / "robot/gr1_picknplace", tmp_path / "gr1", limit=1, image_size=(32, 32))
    store = EpisodeStore(gr1.root)
    assert (gr1.episodes, gr1.frames, store.column("action", 0).shape) == (1, 416, (416, 44))
    assert store.episodes[0].task.startswith("pick the pear")


def test_stills_inside_a_v2_table_become_a_camera(tmp_path: Path) -> None:
    source = write_lerobot_v2(tmp_path / "v2", [6])
    key = "observation.images.front"
    info = json.loads((source / "meta/info.json").read_text())
    info["features"][key]["dtype"] = "image"
    (source / "meta/info.json").write_text(json.dumps(info))
    (path,) = source.rglob("*.parquet")
    cells = [{"bytes": png(frame), "path": None} for frame in moving_square(6)]
    pq.write_table(pq.read_table(path).append_column(key, pa.array(cells)), path)
    convert(source, tmp_path / "v3")
    assert close(EpisodeStore(tmp_path / "v3").frames("front", 0), moving_square(6))
    cells[2] = {"bytes": b"not an image", "path": None}
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(key), key, pa.array(cells)), path)
    with pytest.raises(WamError, match="expected a JPEG or PNG image"):
        convert(source, tmp_path / "other")
