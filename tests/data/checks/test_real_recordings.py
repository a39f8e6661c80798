"""What the checks say about real recordings, each statement confirmed by looking at the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from wam.data.checks.static import check_store
from wam.data.convert import convert
from wam.data.store import EpisodeStore


def found(store: EpisodeStore) -> list[tuple[str, str]]:
    return sorted({(f.check, f.feature) for f in check_store(store) if f.severity != "note"})


def test_bridge_has_one_black_camera_and_nothing_else(real_data: Path, tmp_path: Path) -> None:
    convert(real_data / "robot/octo_bridge_debug", tmp_path / "d", fps=5)
    assert found(EpisodeStore(tmp_path / "d")) == [("blank", "image_3")]


def test_a_bridge_episode_turned_upside_down_is_found(real_data: Path, tmp_path: Path) -> None:
    convert(real_data / "robot/octo_bridge_debug", tmp_path / "d", fps=5, cameras=["image_0"])
    store = EpisodeStore(tmp_path / "d")
    from wam.data.checks.frames import thumbnails
    from wam.data.checks.orientation import check_against_others

    views = {e: thumbnails(store.frames("image_0", e)) for e in range(len(store))}
    assert check_against_others("image_0", views) == []
    views[7] = views[7][:, ::-1]
    assert [(f.episodes, "upside down" in f.sentence) for f in check_against_others("image_0", views)] == [((7,), True)]


def test_droid_clips_wrap_their_roll_and_have_no_other_fault(real_data: Path, tmp_path: Path) -> None:
    convert(
        real_data / "robot/ctrl_world/droid_subset", tmp_path / "d", cameras=["view0"], image_size=(96, 160), limit=4
    )
    assert found(EpisodeStore(tmp_path / "d")) == [("wraps", "action"), ("wraps", "observation.state")]


def test_clips_with_a_frame_too_many_are_named(real_data: Path, tmp_path: Path) -> None:
    convert(
        real_data / "robot/ctrl_world/droid_new_setup", tmp_path / "d", cameras=["view0"], image_size=(48, 80), limit=4
    )
    notes = [f for f in check_store(EpisodeStore(tmp_path / "d")) if f.check == "conversion"]
    assert {e for f in notes for e in f.episodes} == {1, 3}
    assert any("206" in f.sentence and "205" in f.sentence for f in notes)


def test_gr1_holds_its_legs_still(real_data: Path, tmp_path: Path) -> None:
    convert(real_data / "robot/gr1_picknplace", tmp_path / "d", image_size=(32, 32), limit=2)
    store = EpisodeStore(tmp_path / "d")
    assert found(store) == [("constant", "action")]


@pytest.mark.parametrize("name", ["cosmos_umi", "irasim_languagetable"])
def test_sound_clips_have_no_findings(real_data: Path, tmp_path: Path, name: str) -> None:
    convert(real_data / "robot" / name, tmp_path / "d")
    assert found(EpisodeStore(tmp_path / "d")) == []


def test_the_droid_sample_has_broken_joint_columns_and_two_missing_cameras(real_data: Path) -> None:
    store = EpisodeStore(real_data / "robot/cosmos_droid_lerobot_v3")
    assert found(store) == [
        ("constant", "observation.state.gripper_position"),
        ("decodable", "exterior_image_1_left"),
        ("decodable", "wrist_image_left"),
        ("stuck", "action.joint_position"),
        ("stuck", "observation.state.joint_positions"),
        ("wraps", "observation.state.cartesian_position"),
    ]


def test_torn_frames_of_a_wrist_camera_are_found(real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wrist"
    folder.mkdir()
    (folder / "wrist.mp4").symlink_to(real_data / "robot/dreamzero_debug/wrist_image_left.mp4")
    convert(folder, tmp_path / "d")
    torn = [f for f in check_store(EpisodeStore(tmp_path / "d")) if f.check == "torn"]
    assert len(torn) == 1
    assert "14 torn frames" in torn[0].sentence
