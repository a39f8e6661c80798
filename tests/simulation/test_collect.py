import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wam.contracts import WamError
from wam.data.store import EpisodeStore
from wam.simulation.collect import collect
from wam.simulation.config import CollectConfig
from wam.simulation.environment import make_environment
from wam.simulation.record import FIRST_SEED, Job
from wam.simulation.recovery import RecoveryNoise

PAIR = ("metaworld/faucet-open-v3", "metaworld/button-press-topdown-v3")
SMALL = CollectConfig(
    environments=PAIR, episodes=2, play_episodes=1, play_steps=20, cameras=("side",), image_size=32, processes=1
)
COLUMNS = ("observation.state", "action", "sim.state", "next.reward", "next.success")


def silent(done, total):
    pass


def content(root):
    store = EpisodeStore(root)
    return [
        {
            "tasks": episode.tasks,
            "extra": dict(episode.extra),
            "frames": store.frames("side", episode, range(episode.length)),
            **{name: store.column(name, episode) for name in COLUMNS},
        }
        for episode in store.episodes
    ]


def assert_same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"frames"}:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
        # equal pictures may be encoded a little differently: the encoder's colour conversion is not bit-exact
        assert a["frames"].shape == b["frames"].shape
        assert np.abs(a["frames"].astype(int) - b["frames"]).mean() < 1


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    root = tmp_path_factory.mktemp("collect") / "alone"
    collect(SMALL, root, progress=silent)
    return root


def test_every_episode_that_was_asked_for_is_there(alone):
    store = EpisodeStore(alone)
    kinds = [(episode.extra["environment"], episode.extra["play"]) for episode in store.episodes]
    assert kinds == [(name, play) for play in (False, True) for name in PAIR] + [(name, False) for name in PAIR]
    assert all(episode.extra["success"] for episode in store.episodes if not episode.extra["play"])
    assert all(episode.extra["seed"] >= FIRST_SEED for episode in store.episodes)
    assert all(episode.tasks == ("play",) for episode in store.episodes if episode.extra["play"])


def test_the_dataset_knows_its_cameras_and_action_space(alone):
    info, env = EpisodeStore(alone).info, make_environment(PAIR[0], image_size=32)
    camera = info.wam["cameras"]["side"]
    np.testing.assert_array_equal(camera["intrinsics"], env.views["side"].intrinsics)
    np.testing.assert_array_equal(camera["extrinsics"], env.views["side"].extrinsics)
    assert info.action_space == env.action_space
    assert info.fps == 40
    assert info.cameras == ("side",)


def test_recorded_actions_replay_to_the_recorded_states(alone):
    store = EpisodeStore(alone)
    episode = store.episodes[2]
    env = make_environment(episode.extra["environment"], image_size=32, cameras=("side",))
    states, actions = store.column("sim.state", episode), store.column("action", episode)
    env.reset(0)
    env.set_state(states[0])
    for state, felt, action in zip(states, store.column("observation.state", episode), actions, strict=True):
        np.testing.assert_array_equal(env.get_state(), state)
        np.testing.assert_array_equal(env.robot_state(), felt)
        env.step(action, render=False)


def test_an_episode_s_seed_alone_gives_its_start(alone):
    episode = EpisodeStore(alone).episodes[0]
    env = make_environment(episode.extra["environment"], image_size=32, cameras=("side",))
    env.reset(episode.extra["seed"])
    np.testing.assert_array_equal(env.get_state(), EpisodeStore(alone).column("sim.state", episode)[0])


def test_a_demonstration_that_begins_astray_leads_from_elsewhere_to_success(tmp_path):
    config = dataclasses.replace(SMALL, environments=PAIR[:1], episodes=3, play_episodes=0, astray=1.0)
    collect(config, tmp_path / "astray", progress=silent)
    store = EpisodeStore(tmp_path / "astray")
    env = make_environment(PAIR[0], image_size=32, cameras=("side",))
    for episode in store.episodes:
        env.reset(episode.extra["seed"])
        began = store.column("observation.state", episode)[0, :3]
        assert np.linalg.norm(began - env.robot_state()[:3]) > 0.03  # metres
        assert episode.extra["success"]
        assert not store.column("next.success", episode)[0]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_of_astray_starts_outside_0_to_1_is_refused(share):
    with pytest.raises(WamError, match="expected an astray between 0 and 1"):
        dataclasses.replace(SMALL, astray=share)


def test_the_number_of_processes_does_not_change_the_dataset(alone, tmp_path):
    collect(dataclasses.replace(SMALL, processes=2), tmp_path / "two", progress=silent)
    assert_same(content(tmp_path / "two"), content(alone))


def run(root, *, processes=2):
    program = f"""
from wam.simulation.collect import collect
from tests.simulation.test_collect import SMALL
import dataclasses
if __name__ == "__main__":
    try:
        collect(dataclasses.replace(SMALL, processes={processes}), {str(root)!r}, resume=True)
    except KeyboardInterrupt as stop:
        print(stop)
"""
    path = root.parent / "run.py"
    path.write_text(program)
    return subprocess.Popen(
        [sys.executable, path],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        start_new_session=True,
    )


def wait_for_episodes(root, count):
    deadline = time.monotonic() + 90
    while len(list((root / "meta/episodes").glob("*/*.parquet"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive_in(session):
    """Processes of a session that are not zombies, from /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.name))
    return found


def test_after_kill_9_nothing_finished_is_lost_and_no_worker_stays(alone, tmp_path):
    root = tmp_path / "killed"
    process = run(root)
    wait_for_episodes(root, 2)
    process.kill()
    process.wait()
    kept = len(content(root))
    assert 2 <= kept <= 6
    deadline = time.monotonic() + 10
    while alive_in(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    result = collect(SMALL, root, resume=True, progress=silent)
    assert result.new == 6 - kept
    assert_same(content(root), content(alone))


def test_sigint_keeps_what_is_finished_and_says_how_to_go_on(alone, tmp_path):
    root = tmp_path / "stopped"
    process = run(root)
    wait_for_episodes(root, 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    kept = len(content(root))
    if kept < 6:
        assert f"stopped after {kept} of 6 episodes" in output
        assert "resume" in output
    collect(SMALL, root, resume=True, progress=silent)
    assert_same(content(root), content(alone))


def test_resuming_a_finished_collection_changes_nothing(alone):
    before = content(alone)
    assert collect(SMALL, alone, resume=True, progress=silent).new == 0
    assert_same(content(alone), before)


def test_resuming_with_other_settings_names_the_setting(alone):
    with pytest.raises(WamError, match="expected episodes = 2"):
        collect(dataclasses.replace(SMALL, episodes=3), alone, resume=True, progress=silent)


def test_a_folder_with_a_dataset_is_not_overwritten(alone):
    with pytest.raises(WamError, match="no dataset yet"):
        collect(SMALL, alone, progress=silent)


def test_an_expert_that_keeps_failing_ends_with_a_clear_sentence_and_keeps_the_rest(tmp_path):
    wild = RecoveryNoise(level=(0, 0), burst_rate=1, burst_steps=(600, 600), burst_size=(40, 40))
    config = dataclasses.replace(SMALL, environments=PAIR[:1], noise=wild, attempts=2, action_repeat=25)
    with pytest.raises(WamError, match=r"to succeed within 2 attempts .*got 2 failures"):
        collect(config, tmp_path / "failing", progress=silent)


def test_progress_is_reported_episode_by_episode(tmp_path):
    calls = []
    config = dataclasses.replace(SMALL, environments=("pusht/pusht",), cameras=(), episodes=0, play_episodes=3)
    result = collect(config, tmp_path / "pusht", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert (result.episodes, result.frames) == (3, 60)
    assert EpisodeStore(tmp_path / "pusht").info.action_space.kind == "absolute"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"environments": ("metaworld/push-v3", "pusht/pusht")}, "one family"),
        ({"environments": ()}, "at least one environment"),
        ({"attempts": 0}, "attempts of at least 1"),
        ({"episodes": 0, "play_episodes": 0}, "at least one episode"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(wrong, sentence):
    with pytest.raises(WamError, match=sentence):
        dataclasses.replace(SMALL, **wrong)


def test_a_misspelt_environment_shows_before_anything_is_written(tmp_path):
    config = dataclasses.replace(SMALL, environments=(PAIR[0], "metaworld/drawer-opn-v3"))
    with pytest.raises(WamError, match="did you mean 'metaworld/drawer-open-v3'"):
        collect(config, tmp_path / "typo", progress=silent)
    assert not (tmp_path / "typo").exists()


def test_episodes_of_one_number_start_alike_in_tasks_that_share_a_scene(environment):
    jobs = [Job(environment=f"metaworld/faucet-{word}-v3", play=False, index=3) for word in ("open", "close")]
    starts = {job.start(0, 0) for job in jobs}
    assert len(starts) == 1
    assert starts != {jobs[0].start(0, 1)} != {jobs[0].start(1, 0)}
    assert jobs[0].rng(0, 0).random() != jobs[1].rng(0, 0).random()
    places = []
    for job in jobs:
        env = environment(job.environment, image_size=8)
        env.reset(job.start(0, 0))
        places.append(env.get_state()[1:3])
    assert places[0] == pytest.approx(places[1])
