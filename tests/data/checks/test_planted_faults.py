"""Every fault is found where it was planted, and nothing else is found; on clean data nothing is found at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import EPISODES, INTRINSICS, SIZE, SPACE, Episode, camera_pose, write

from wam.data.checks.static import check_store
from wam.data.poses import CameraPose
from wam.data.store import EpisodeStore

POSE = CameraPose(intrinsics=INTRINSICS, extrinsics=camera_pose(), size=(SIZE, SIZE))
EVERY = tuple(range(EPISODES))


def checks_of(findings) -> set[str]:
    return {f.check for f in findings}


def test_a_clean_dataset_has_no_findings_with_a_known_camera_and_without(tmp_path: Path) -> None:
    store = write(tmp_path / "clean")
    assert [str(f) for f in check_store(store, cameras={"front": POSE})] == []
    assert [str(f) for f in check_store(store, cameras={})] == []


# faults of numbers: name, the check that must find it, the episodes it must name (() for the whole dataset)


def constant_dimension(_: int, episode: Episode) -> None:
    episode["columns"]["action"][:, 1] = 0.25


def still_action(_: int, episode: Episode) -> None:
    episode["columns"]["action"][:] = 0


def out_of_range(index: int, episode: Episode) -> None:
    if index == 3:
        episode["columns"]["action"][20:24, 2] = 1.7


def tiny_units(_: int, episode: Episode) -> None:
    episode["columns"]["action"] *= 0.01


def spike(index: int, episode: Episode) -> None:
    if index == 2:
        episode["columns"]["observation.state"][30, 0] = 400.0


def broken_off(index: int, episode: Episode) -> None:
    if index == 4:
        episode["columns"]["observation.state"][5:] = episode["columns"]["observation.state"][5]


def wrapped_angle(_: int, episode: Episode) -> None:
    yaw = 3.0 + 3 * episode["columns"]["observation.state"][:, 4]
    episode["columns"]["observation.state"][:, 4] = (yaw + np.pi) % (2 * np.pi) - np.pi


def angle_on_two_sides(index: int, episode: Episode) -> None:
    side = 1 if index < 2 else -1
    episode["columns"]["observation.state"][:, 4] = side * (3.0 - 0.05 * episode["columns"]["observation.state"][:, 4])


def unwrapped_difference(index: int, episode: Episode) -> None:
    episode["columns"]["action"][:, 0] *= 0.1
    if index == 1:
        episode["columns"]["action"][7, 0] += 2 * np.pi


def held_actions(_: int, episode: Episode) -> None:
    episode["columns"]["action"] = np.repeat(episode["columns"]["action"][::3], 3, axis=0)


def slow_actions(_: int, episode: Episode) -> None:
    """Three actions were recorded for every state, and the first third of them was kept."""
    action = episode["columns"]["action"]
    episode["columns"]["action"] = np.repeat(action, 3, axis=0)[: len(action)] / 3


def doubled_rate(index: int, episode: Episode) -> None:
    if index == 5:
        state = episode["columns"]["observation.state"]
        state[:, :3] = state[0, :3] + 2 * (state[:, :3] - state[0, :3])


def shifted(values: np.ndarray, rows: int) -> np.ndarray:
    """Later by `rows`, the ends filled with the first or last value."""
    return values[np.clip(np.arange(len(values)) - rows, 0, len(values) - 1)]


def late_actions(_: int, episode: Episode) -> None:
    episode["columns"]["action"] = shifted(episode["columns"]["action"], 3)


def early_actions(_: int, episode: Episode) -> None:
    episode["columns"]["action"] = shifted(episode["columns"]["action"], -5)


def late_in_one(index: int, episode: Episode) -> None:
    if index == 2:
        late_actions(index, episode)


def gripper_in_one(index: int, episode: Episode) -> None:
    if index == 1:
        episode["columns"]["action"][:, 3] *= -1


def gripper_in_all(_: int, episode: Episode) -> None:
    episode["columns"]["action"][:, 3] *= -1


NUMBERS = [
    (constant_dimension, "constant", ()),
    (out_of_range, "range", (3,)),
    (tiny_units, "range", ()),
    (spike, "spikes", (2,)),
    (broken_off, "stuck", (4,)),
    (wrapped_angle, "wraps", EVERY),
    (angle_on_two_sides, "wraps", (0, 1)),
    (held_actions, "rate", EVERY),
    (slow_actions, "rate", EVERY),
    (doubled_rate, "rate", (5,)),
    (late_actions, "action_lag", ()),
    (early_actions, "action_lag", ()),
    (late_in_one, "action_lag", (2,)),
    (gripper_in_one, "gripper", (1,)),
    (gripper_in_all, "gripper", ()),
]


@pytest.mark.parametrize(("plant", "check", "episodes"), NUMBERS, ids=[p.__name__ for p, *_ in NUMBERS])
def test_a_fault_of_the_numbers_is_found_and_no_other(tmp_path: Path, plant, check: str, episodes: tuple) -> None:
    findings = [f for f in check_store(write(tmp_path / "d", plant), video_episodes=1) if f.check != "image_lag"]
    assert checks_of(findings) == {check}, [str(f) for f in findings]
    assert any(f.episodes == episodes for f in findings), [f.episodes for f in findings]
    assert all(len(str(f)) > 60 and any(c.isdigit() for c in f.sentence) for f in findings)


def test_an_action_that_never_changes_is_an_error(tmp_path: Path) -> None:
    findings = check_store(write(tmp_path / "d", still_action), video_episodes=1)
    assert [(f.severity, f.check) for f in findings if f.severity == "error"] == [("error", "constant")]


def test_a_difference_of_a_whole_turn_is_an_error(tmp_path: Path) -> None:
    loose = dataclasses.replace(SPACE, low=(-10.0,) * 4, high=(10.0,) * 4)
    findings = check_store(write(tmp_path / "d", unwrapped_difference, space=loose), video_episodes=1)
    assert ("error", "wraps", (1,)) in [(f.severity, f.check, f.episodes) for f in findings]


def test_a_wrong_rate_in_the_action_space_is_found(tmp_path: Path) -> None:
    store = write(tmp_path / "d", space=dataclasses.replace(SPACE, rate_hz=30))
    assert checks_of(check_store(store, video_episodes=1)) == {"rate"}


def test_a_gripper_that_the_action_space_declares_the_wrong_way_round_is_found(tmp_path: Path) -> None:
    store = write(tmp_path / "d", space=dataclasses.replace(SPACE, gripper_closed_high=False))
    assert checks_of(check_store(store, video_episodes=1)) == {"gripper"}


# what a writer refuses, but other tools write


def patch_column(store: EpisodeStore, name: str, change: Callable[[np.ndarray], None], *, episode: int) -> None:
    """Rewrite the rows of one episode in place."""
    (path,) = (store.root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    values = np.array(table[name].to_pylist())
    rows = np.flatnonzero(table["episode_index"].to_numpy() == episode)
    part = values[rows]
    change(part)
    values[rows] = part
    at, kind = table.column_names.index(name), table.schema.field(name).type
    pq.write_table(table.set_column(at, name, pa.array(values.tolist(), kind)), path)


def test_nan_actions_are_found(tmp_path: Path) -> None:
    store = write(tmp_path / "d")

    def poison(values: np.ndarray) -> None:
        values[17, 2] = np.nan

    patch_column(store, "action", poison, episode=1)
    findings = check_store(store, video_episodes=1)
    assert [(f.check, f.episodes, f.evidence) for f in findings] == [("finite", (1,), 1.0)]
    assert "row 17 of episode 1" in findings[0].sentence


def test_timestamps_at_another_rate_are_found(tmp_path: Path) -> None:
    store = write(tmp_path / "d")

    def stretch(values: np.ndarray) -> None:
        values *= 2

    patch_column(store, "timestamp", stretch, episode=1)
    findings = [f for f in check_store(store, video_episodes=1) if f.check == "rate"]
    assert [f.episodes for f in findings] == [(1,)]


# faults of images


def turn(vertical: bool, horizontal: bool, only: int | None = None):
    def plant(index: int, episode: Episode) -> None:
        if only is None or index == only:
            frames = episode["images"]["front"]
            episode["images"]["front"] = frames[:, :: -1 if vertical else 1, :: -1 if horizontal else 1]

    return plant


TURNS = [("upside down", True, False), ("mirrored", False, True), ("turned by 180 degrees", True, True)]


@pytest.mark.parametrize(("name", "vertical", "horizontal"), TURNS)
def test_turned_images_are_found(tmp_path: Path, name: str, vertical: bool, horizontal: bool) -> None:
    one = check_store(write(tmp_path / "one", turn(vertical, horizontal, only=4)), cameras={})
    assert [(f.severity, f.check, f.episodes) for f in one] == [("error", "orientation", (4,))]
    assert name in one[0].sentence

    every = write(tmp_path / "every", turn(vertical, horizontal))
    for cameras, severity in (({"front": POSE}, "error"), ({}, "warning")):
        findings = check_store(every, cameras=cameras)
        assert [(f.severity, f.check) for f in findings] == [(severity, "orientation")]
        assert name in findings[0].sentence


def test_camera_poses_are_read_from_the_dataset(tmp_path: Path) -> None:
    pose = {"intrinsics": INTRINSICS.tolist(), "extrinsics": camera_pose().tolist()}
    wam = {"action_space": SPACE.to_dict(), "cameras": {"front": pose}}
    store = write(tmp_path / "d", turn(False, True), space=None, wam=wam)
    assert [(f.severity, f.check) for f in check_store(store)] == [("error", "orientation")]


def black_episode(index: int, episode: Episode) -> None:
    if index == 1:
        episode["images"]["front"][:] = 0


def black_frames(index: int, episode: Episode) -> None:
    if index == 3:
        episode["images"]["front"][40:42] = 0


def black_camera(_: int, episode: Episode) -> None:
    episode["images"]["front"][:] = 0


def frozen(index: int, episode: Episode) -> None:
    if index == 2:
        episode["images"]["front"][20:40] = episode["images"]["front"][20]


def slow_camera(_: int, episode: Episode) -> None:
    episode["images"]["front"] = np.repeat(episode["images"]["front"][::2], 2, axis=0)


def torn_frame(index: int, episode: Episode) -> None:
    if index == 5:
        episode["images"]["front"][33] = np.roll(episode["images"]["front"][33], 25, axis=0)


def shifted_frames(_: int, episode: Episode) -> None:
    episode["images"]["front"] = shifted(episode["images"]["front"], 3)


IMAGES = [
    (black_episode, "blank", "error", (1,)),
    (black_frames, "blank", "error", (3,)),
    (black_camera, "blank", "warning", EVERY),
    (frozen, "frozen", "error", (2,)),
    (slow_camera, "frozen", "warning", EVERY),
    (torn_frame, "torn", "error", (5,)),
    (shifted_frames, "image_lag", "error", ()),
]


@pytest.mark.parametrize(("plant", "check", "severity", "episodes"), IMAGES, ids=[p.__name__ for p, *_ in IMAGES])
def test_a_fault_of_the_images_is_found_and_no_other(
    tmp_path: Path, plant, check: str, severity: str, episodes: tuple
) -> None:
    findings = check_store(write(tmp_path / "d", plant), cameras={})
    assert [(f.check, f.severity, f.feature) for f in findings] == [(check, severity, "front")], list(
        map(str, findings)
    )
    assert set(findings[0].episodes) <= set(episodes)
    assert len(findings[0].episodes) >= 0.8 * len(episodes)


def test_videos_that_are_missing_or_cut_off_are_found(tmp_path: Path) -> None:
    store = write(tmp_path / "d")
    (video,) = (store.root / "videos").rglob("*.mp4")
    whole = video.read_bytes()
    video.write_bytes(whole[:1500])
    assert [(f.check, f.episodes) for f in check_store(EpisodeStore(store.root))] == [("decodable", EVERY)]
    video.unlink()
    (finding,) = check_store(EpisodeStore(store.root))
    assert (finding.check, finding.episodes) == ("decodable", EVERY)
    assert video.name in finding.sentence


def test_a_column_that_a_file_lacks_is_found(tmp_path: Path) -> None:
    store = write(tmp_path / "d")
    (path,) = (store.root / "data").rglob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["action"]), path)
    findings = check_store(EpisodeStore(store.root), video_episodes=1)
    assert [(f.check, f.feature, f.episodes) for f in findings] == [("readable", "action", EVERY)]
