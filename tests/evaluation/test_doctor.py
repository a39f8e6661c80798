"""The doctor replays recorded actions and names the fault that was planted; a sound recording passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wam.contracts import WamError
from wam.data.writer import EpisodeWriter
from wam.evaluation.doctor import Diagnosis, examine
from wam.simulation.environment import Environment, make_environment

ENVIRONMENT, LENGTH, EPISODES = "metaworld/faucet-open-v3", 40, 3
Recording = dict[str, Any]


def record(environment: Environment, seed: int) -> Recording:
    """Smooth random actions with an opening and closing gripper, one row per frame."""
    rng = np.random.default_rng(seed)
    space = environment.action_space
    low, high = np.array(space.low), np.array(space.high)
    middle, half = (low + high) / 2, (high - low) / 2
    action = np.zeros(space.dim)
    rows: dict[str, list[np.ndarray]] = {"observation.state": [], "action": [], "sim.state": []}
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in environment.cameras}
    seen = environment.reset(seed)
    for t in range(LENGTH):
        if t % 5 == 0:
            target = rng.uniform(-1, 1, space.dim)
        action = 0.5 * action + 0.5 * target
        if space.gripper:
            action[-1] = 1.0 if t // 12 % 2 else -1.0
        command = (middle + half * action).astype(np.float32)
        rows["observation.state"].append(np.asarray(seen.state))
        rows["action"].append(command)
        rows["sim.state"].append(environment.get_state())
        for camera in images:
            images[camera].append(seen.images[camera])
        result = environment.step(command)
        assert result.observation is not None
        seen = result.observation
    return {
        "images": {k: np.stack(v) for k, v in images.items()},
        "columns": {k: np.stack(v) for k, v in rows.items()},
    }


@pytest.fixture(scope="module")
def recordings() -> tuple[list[Recording], Any]:
    environment = make_environment(ENVIRONMENT, image_size=64)
    made = [record(environment, seed) for seed in range(EPISODES)]
    environment.close()
    return made, environment.action_space


def diagnose(
    root: Path,
    recordings: tuple[list[Recording], Any],
    plant: Callable[[int, Recording], None] | None = None,
    *,
    environment: str = ENVIRONMENT,
) -> Diagnosis:
    episodes, space = recordings
    with EpisodeWriter(root, fps=space.rate_hz, action_space=space, environment=environment) as writer:
        for index, original in enumerate(episodes):
            episode = {group: {k: v.copy() for k, v in original[group].items()} for group in original}
            if plant is not None:
                plant(index, episode)
            writer.add_episode(**episode, task="play", extra={"play": True})
    return examine(root)


def test_a_sound_recording_passes_and_the_doctor_says_what_it_checked(tmp_path: Path, recordings) -> None:
    diagnosis = diagnose(tmp_path / "d", recordings)
    assert [str(f) for f in diagnosis.findings] == []
    assert diagnosis.healthy
    assert any("replay of 48 steps of 3 episodes" in line for line in diagnosis.done)
    assert diagnosis.skipped == ()
    assert diagnosis.lines()[-1] == "0 errors, 0 warnings, 0 notes"


def gripper_flipped(_: int, episode: Recording) -> None:
    episode["columns"]["action"][:, 3] *= -1


def axis_flipped(_: int, episode: Recording) -> None:
    episode["columns"]["action"][:, 1] *= -1


def two_rows_late(_: int, episode: Recording) -> None:
    episode["columns"]["action"][2:] = episode["columns"]["action"][:-2].copy()


def three_rows_early(_: int, episode: Recording) -> None:
    episode["columns"]["action"][:-3] = episode["columns"]["action"][3:].copy()


def halved(_: int, episode: Recording) -> None:
    episode["columns"]["action"] *= 0.5


def upside_down(_: int, episode: Recording) -> None:
    episode["images"]["side"] = episode["images"]["side"][:, ::-1]


def mirrored(_: int, episode: Recording) -> None:
    episode["images"]["top"] = episode["images"]["top"][:, :, ::-1]


def frames_late(_: int, episode: Recording) -> None:
    episode["images"]["side"][2:] = episode["images"]["side"][:-2].copy()


def cameras_swapped(_: int, episode: Recording) -> None:
    images = episode["images"]
    images["side"], images["top"] = images["top"], images["side"]


FAULTS = [
    (gripper_flipped, "gripper", "action", "negate gripper"),
    (axis_flipped, "replay", "action", "negate y"),
    (two_rows_late, "action_lag", "action", "2 rows earlier"),
    (three_rows_early, "action_lag", "action", "3 rows later"),
    (halved, "range", "action", "multiply them by 2"),
    (upside_down, "orientation", "side", "flip=vertical"),
    (mirrored, "orientation", "top", "flip=horizontal"),
    (frames_late, "image_lag", "side", "2 rows earlier"),
    (cameras_swapped, "camera_name", "top", "'side'"),
]


@pytest.mark.parametrize(("plant", "check", "feature", "advice"), FAULTS, ids=[p.__name__ for p, *_ in FAULTS])
def test_a_planted_fault_is_named_with_its_cure(
    tmp_path: Path, recordings, plant, check: str, feature: str, advice: str
) -> None:
    diagnosis = diagnose(tmp_path / "d", recordings, plant)
    assert not diagnosis.healthy
    assert {f.check for f in diagnosis.errors} == {check}, diagnosis.lines()
    mine = [f for f in diagnosis.errors if f.feature == feature]
    assert len(mine) == 1
    assert advice in mine[0].sentence


def test_one_bad_episode_is_told_from_the_others(tmp_path: Path, recordings) -> None:
    def noisy(index: int, episode: Recording) -> None:
        if index == 1:
            action = episode["columns"]["action"]
            action[:] = np.random.default_rng(0).uniform(-1, 1, action.shape)

    diagnosis = diagnose(tmp_path / "d", recordings, noisy)
    assert [f.episodes for f in diagnosis.errors if f.check == "replay"] == [(1,)]


def test_actions_that_explain_nothing_are_an_error(tmp_path: Path, recordings) -> None:
    def noise(index: int, episode: Recording) -> None:
        action = episode["columns"]["action"]
        action[:] = np.random.default_rng(index).uniform(-1, 1, action.shape)

    (finding,) = (f for f in diagnose(tmp_path / "d", recordings, noise).errors if f.check == "replay")
    assert finding.episodes == (0, 1, 2)
    assert "do not lead to the recorded states" in finding.sentence


def test_an_unknown_environment_is_skipped_with_its_reason(tmp_path: Path, recordings) -> None:
    diagnosis = diagnose(tmp_path / "d", recordings, environment="metaworld/faucet-opn-v3")
    assert diagnosis.findings == ()
    assert any("faucet-opn-v3" in line and "did you mean" in line for line in diagnosis.skipped)


def test_a_recording_of_another_task_does_not_look_like_the_simulator(tmp_path: Path, recordings) -> None:
    diagnosis = diagnose(tmp_path / "d", recordings, environment="metaworld/drawer-open-v3")
    assert any(f.check == "replay" and "differ from the simulator's picture" in f.sentence for f in diagnosis.findings)


def test_states_that_the_environment_cannot_take_are_skipped_with_their_reason(tmp_path: Path, recordings) -> None:
    def cut(_: int, episode: Recording) -> None:
        episode["columns"]["sim.state"] = episode["columns"]["sim.state"][:, :7]

    diagnosis = diagnose(tmp_path / "d", recordings, cut)
    assert diagnosis.findings == ()
    assert any("expected a state of metaworld/faucet-open-v3" in line for line in diagnosis.skipped)


def test_the_doctor_examines_a_second_family(tmp_path: Path) -> None:
    environment = make_environment("pusht/pusht", image_size=64)
    made = [record(environment, seed) for seed in range(2)]
    environment.close()
    diagnosis = diagnose(tmp_path / "d", (made, environment.action_space), environment="pusht/pusht")
    assert diagnosis.healthy, diagnosis.lines()
    assert any("replay" in line for line in diagnosis.done)


def test_a_folder_without_a_dataset_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(WamError, match=r"LeRobot v3\.0 dataset"):
        examine(tmp_path / "nothing")
