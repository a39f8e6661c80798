"""Whatever happens to the writer, finished episodes stay, the folder reads, and resuming goes on."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.toy_episodes import SPACE, episode_arrays, frame_numbers, numbered_frames
from wam.contracts import WamError
from wam.data.store import EpisodeStore
from wam.data.writer import EpisodeWriter

LENGTHS = (6, 4)


class Killed(BaseException):
    """Stands for the process's end at this point: nothing after it runs."""


def open_writer(root: Path) -> EpisodeWriter:
    return EpisodeWriter(root, fps=10, action_space=SPACE, resume=True)


def write(writer: EpisodeWriter, finished: list[int] | None = None, *, finalize: bool = False) -> None:
    """Add the episodes still missing; the task changes with each, so that the table of tasks is rewritten too."""
    for seed in range(len(writer), len(LENGTHS)):
        writer.add_episode(**episode_arrays(seed, LENGTHS[seed]), task=f"task {seed}", extra={"seed": seed})
        if finished is not None:
            finished.append(seed)
    if finalize:
        writer.finalize()


def check(root: Path, count: int) -> None:
    """The folder holds the first `count` episodes, value for value."""
    store = EpisodeStore(root)
    assert len(store) == count
    for seed in range(count):
        arrays = episode_arrays(seed, LENGTHS[seed])
        assert np.array_equal(store.column("sim.state", seed), arrays["columns"]["sim.state"])
        assert frame_numbers(store.frames("top", seed)) == frame_numbers(arrays["images"]["top"])
        assert store.episodes[seed].task == f"task {seed}"
        assert store.tasks[store.column("task_index", seed)[0]] == f"task {seed}"


def crash_points(root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many files a whole run moves into place."""
    calls = []
    original = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append(to), original(self, to))[1])
    with open_writer(root) as writer:
        write(writer)
    monkeypatch.setattr(Path, "replace", original)
    return len(calls)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_every_single_write_no_finished_episode_is_lost(tmp_path, monkeypatch, moment):
    points, original = crash_points(tmp_path / "whole", monkeypatch), Path.replace
    assert points > 10
    for point in range(points):
        root, calls, finished = tmp_path / f"{moment}-{point}", iter(range(points)), []

        def replace(self, to, calls=calls, point=point):
            last = next(calls) == point
            if last and moment == "before":
                raise Killed
            result = original(self, to)
            if last:
                raise Killed
            return result

        writer = open_writer(root)
        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            write(writer, finished, finalize=True)
        monkeypatch.setattr(Path, "replace", original)
        writer.close()  # the system lets go of the lock when a process ends

        if (root / "meta/info.json").is_file():
            held = len(EpisodeStore(root))
            assert held in (len(finished), len(finished) + 1)
            check(root, held)
        else:
            assert not finished
        with open_writer(root) as again:
            write(again)
        check(root, len(LENGTHS))
        store = EpisodeStore(root)
        assert (store.info.total_episodes, store.info.total_frames) == (len(LENGTHS), sum(LENGTHS))
        assert not list(root.rglob("*.part"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_earlier_episodes_stay(tmp_path, monkeypatch, code):
    original = os.fsync
    for point in range(crash_points(tmp_path / "whole", monkeypatch)):
        root, calls = tmp_path / str(point), iter(range(1000))

        def fsync(file, calls=calls, point=point):
            if next(calls) >= point:
                raise OSError(code, os.strerror(code))
            original(file)

        writer, finished = open_writer(root), []
        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(WamError, match="free some space and resume"):
            write(writer, finished, finalize=True)
        monkeypatch.setattr(os, "fsync", original)
        assert not list(root.rglob("*.part"))
        writer.close()
        with open_writer(root) as again:
            assert len(again) >= len(finished)
            write(again)
        check(root, len(LENGTHS))


def test_the_same_writer_goes_on_once_there_is_room_again(tmp_path, monkeypatch):
    original = os.fsync

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_writer(tmp_path / "d") as writer:
        writer.add_episode(**episode_arrays(0, LENGTHS[0]), task="task 0", extra={"seed": 0})
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(WamError, match="No space left"):
            write(writer)
        monkeypatch.setattr(os, "fsync", original)
        assert len(writer) == 1
        write(writer)
    check(tmp_path / "d", len(LENGTHS))


WRITER = """
import sys
sys.path[:0] = [{tests!r}]
from tests.data.toy_episodes import SPACE, episode_arrays
from wam.data.writer import EpisodeWriter
writer = EpisodeWriter({root!r}, fps=10, action_space=SPACE, resume=True)
for seed in range(len(writer), 10_000):
    writer.add_episode(**episode_arrays(seed, 5), task=f"task {{seed % 7}}", extra={{"seed": seed}})
    print(seed, flush=True)
"""


def test_kill_minus_nine_at_random_moments_loses_nothing_that_was_finished(tmp_path):
    root, finished, dice = tmp_path / "d", -1, random.Random(0)
    program = WRITER.format(tests=str(Path(__file__).parents[2]), root=str(root))
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(dice.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        printed = [line for line in process.stdout.read().split("\n") if line.isdigit()]
        process.wait()
        finished = max([finished, *map(int, printed)])
        store = EpisodeStore(root)
        assert len(store) >= finished + 1
        for seed in range(len(store)):
            assert np.array_equal(store.column("action", seed), episode_arrays(seed, 5)["columns"]["action"])
            assert frame_numbers(store.frames("side", seed)) == list(range(1000 * seed, 1000 * seed + 5))
        finished = len(store) - 1
    with open_writer(root) as writer:
        assert len(writer) == finished + 1
    assert EpisodeStore(root).info.total_episodes == finished + 1


def test_only_one_writer_at_a_time(tmp_path):
    with open_writer(tmp_path / "d") as writer:
        with pytest.raises(WamError, match="only writer"):
            open_writer(tmp_path / "d")
        write(writer)


def test_an_existing_folder_is_never_overwritten_and_never_continued_with_another_layout(toy_root, tmp_path):
    with pytest.raises(WamError, match="resume=True or choose another folder"):
        EpisodeWriter(toy_root, fps=10)
    with pytest.raises(WamError, match="20 fps"):
        EpisodeWriter(toy_root, fps=20, resume=True)
    with pytest.raises(WamError, match="action space, embodiment and environment"):
        EpisodeWriter(toy_root, fps=10, embodiment="another", resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WamError, match="a folder with files"):
        EpisodeWriter(tmp_path, fps=10)


def _nan(arrays):
    arrays["columns"]["action"][3, 1] = np.nan


def _short(arrays):
    arrays["columns"]["observation.state"] = arrays["columns"]["observation.state"][:-1]


def _missing(arrays):
    del arrays["columns"]["sim.state"]


def _wide(arrays):
    arrays["columns"]["action"] = np.zeros((8, 3), np.float32)


def _float_images(arrays):
    arrays["images"]["side"] = arrays["images"]["side"].astype(np.float32)


def _small_images(arrays):
    arrays["images"]["side"] = numbered_frames(8, size=32)


def _text(arrays):
    arrays["columns"]["reward"] = np.array(["good"] * 8)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_nan, "'action'.*NaN or infinity at frame 3"),
        (_short, "one length.*'observation.state': 7"),
        (_missing, "the features.*sim.state"),
        (_wide, r"'action' of shape \(T, 2\)"),
        (_float_images, "uint8.*float32"),
        (_small_images, r"64, 64, 3\), got uint8 of shape \(8, 32, 32, 3\)"),
        (_text, "numbers in 'reward'"),
    ],
)
def test_a_wrong_episode_is_refused_in_one_sentence_and_leaves_no_trace(tmp_path, spoil, sentence):
    with open_writer(tmp_path / "d") as writer:
        write(writer)
        before = sorted((tmp_path / "d").rglob("*"))
        arrays = episode_arrays(2, 8)
        spoil(arrays)
        with pytest.raises(WamError, match=sentence):
            writer.add_episode(**arrays, task="x")
        assert sorted((tmp_path / "d").rglob("*")) == before
    check(tmp_path / "d", len(LENGTHS))
