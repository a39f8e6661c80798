"""Killed, starved, torn or refused: what was recorded stays, and the run goes on to the same dataset."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.curation.raw import (
    SMALL,
    content,
    deadly,
    full_disk,
    here,
    manifest,
    rejected,
    run,
    scene,
    write,
)
from wam.contracts import WamError
from wam.data.atomic import hold
from wam.data.curation.clips import curate_item
from wam.data.curation.journal import Journal
from wam.data.curation.pipeline import curate


class Killed(BaseException):
    """Stands for the process's end at this point."""


def test_stopped_after_any_event_it_goes_on_to_the_same_dataset(videos, whole, tmp_path):
    root, stopped = tmp_path / "clips", 0

    def briefly(units, config, folder, stage):
        for number, event in enumerate(here(units, config, folder, stage)):
            if number == 2:
                raise Killed
            yield event

    while True:
        try:
            run(videos, root, executor=briefly)
        except Killed:
            stopped += 1
            continue
        break
    assert stopped > 5
    assert content(root) == content(whole)


def test_stopped_at_any_write_of_the_dataset_it_is_made_anew(videos, whole, tmp_path, monkeypatch):
    original, point = Path.replace, 0
    run_once = tmp_path / "once"
    with Journal(run_once / ".curation"):  # the clips are made once, only the tables are written again and again
        pass
    while True:
        root, calls = tmp_path / f"at-{point}", iter(range(10**6))
        shutil.copytree(run_once, root)

        def dies(self, to, calls=calls, point=point):
            if ".curation" not in Path(to).parts and next(calls) == point:
                raise Killed
            return original(self, to)

        monkeypatch.setattr(Path, "replace", dies)
        try:
            run(videos, root)
        except Killed:
            monkeypatch.setattr(Path, "replace", original)
            if point == 0:
                shutil.rmtree(run_once)
                shutil.copytree(root, run_once)
            assert not (root / "meta/info.json").is_file()
            assert run(videos, root).new == 0
            assert content(root) == content(whole)
            point += 1
            continue
        break
    monkeypatch.setattr(Path, "replace", original)
    assert point > 5


PROGRAM = """
import sys
sys.path[:0] = [{tests!r}]
from tests.data.curation.raw import SMALL, SMALL_WORDS, slow
from wam.data.curation.pipeline import curate
if __name__ == "__main__":
    curate([{videos!r}], {root!r}, SMALL, stage=slow, progress=lambda done, total, note: print(note, flush=True))
"""


def test_killed_half_way_nothing_recorded_is_lost_and_it_goes_on(videos, whole, tmp_path):
    root, program = tmp_path / "clips", tmp_path / "program.py"
    text = PROGRAM.format(tests=str(Path(__file__).parents[3]), videos=str(videos), root=str(root))
    program.write_text(text)
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "2 clips" not in (line := process.stdout.readline()):
        assert process.poll() is None, line
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Journal(root / ".curation") as journal:
        before = dict(journal.clips)
    assert len(before) >= 2
    done = run(videos, root)
    assert done.new == done.clips - len(before)
    assert content(root) == content(whole)


def test_workers_end_with_a_parent_that_is_killed(videos, tmp_path):
    program = tmp_path / "program.py"
    text = PROGRAM.format(tests=str(Path(__file__).parents[3]), videos=str(videos), root=str(tmp_path / "clips"))
    program.write_text(text)
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "1 clips" not in process.stdout.readline():
        assert process.poll() is None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.is_file():
        process.kill()
        pytest.skip("this system does not list a process's children")
    workers = [int(pid) for pid in children.read_text().split()]
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if _alive(pid)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_decoder_that_dies_costs_one_clip(videos, tmp_path):
    root = tmp_path / "videos"
    write(root / "killer.mp4", scene(160, seed=5))
    write(root / "opening.mp4", scene(40, seed=6))
    shutil.copy(videos / "b-short.mp4", root / "z-good.mp4")
    done = curate([root], tmp_path / "clips", SMALL, stage=deadly)
    rows = manifest(tmp_path / "clips")
    spans = [(row["start"], row["end"]) for row in rows if row["source"].endswith("killer.mp4")]
    assert spans == [(0, 2), (4, 6), (6, 8)], "all but the clip that held the third second"
    assert [Path(row["source"]).name for row in rows][-1] == "z-good.mp4"
    told = {Path(row["source"]).name: row for row in rejected(tmp_path / "clips")}
    assert (told["killer.mp4"]["reason"], told["killer.mp4"]["start"], told["killer.mp4"]["end"]) == ("crashed", 2, 4)
    assert "status 139" in told["killer.mp4"]["detail"]
    assert told["opening.mp4"]["reason"] == "crashed"
    assert "SIGSEGV, twice on opening" in told["opening.mp4"]["detail"]
    assert done.rejected == {"crashed": 2}


def test_a_decoder_that_hangs_is_ended(tmp_path):
    root = tmp_path / "videos"
    write(root / "sleeper.mp4", scene(120, seed=5))
    curate([root], tmp_path / "clips", replace(SMALL, patience=1.5), stage=deadly)
    assert [row["start"] for row in manifest(tmp_path / "clips")] == [0, 4]
    assert [(row["reason"], row["start"]) for row in rejected(tmp_path / "clips")] == [("stuck", 2)]


def test_two_runs_into_one_folder_are_refused(videos, tmp_path):
    (tmp_path / "clips/.curation").mkdir(parents=True)
    other = hold(tmp_path / "clips")
    with pytest.raises(WamError, match="only writer"):
        run(videos, tmp_path / "clips")
    other.close()
    assert run(videos, tmp_path / "clips").episodes > 0


def test_a_full_disk_is_one_sentence_and_nothing_recorded_is_lost(videos, whole, tmp_path, monkeypatch):
    original, root, room, refused = os.fsync, tmp_path / "clips", 3, 0

    def fsync(file):
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(file)

    monkeypatch.setattr("wam.data.curation.journal._SYNC", 0.0)
    monkeypatch.setattr(os, "fsync", fsync)
    known = 0
    while True:
        try:
            run(videos, root)
        except WamError as error:
            if "free some space and resume" not in str(error):
                raise
            refused += 1
            lines = (root / ".curation/journal.jsonl").read_bytes()
            assert lines == b"" or lines.endswith(b"\n")
            assert len(lines.splitlines()) >= known
            known, room = len(lines.splitlines()), 3 + 4 * refused
            continue
        break
    assert refused > 3
    monkeypatch.setattr(os, "fsync", original)
    assert content(root) == content(whole)


def test_a_disk_that_fills_up_under_a_worker_stops_the_run(videos, tmp_path):
    root = tmp_path / "videos"
    for name in ("first.mp4", "second.mp4"):
        write(root / name, scene(40, seed=len(name)))
    with pytest.raises(WamError, match="No space left on device; free some space and resume"):
        curate([root], tmp_path / "clips", SMALL, stage=full_disk)
    done = curate([root], tmp_path / "clips", SMALL, executor=here)
    assert (done.episodes, done.new) == (2, 1)


def test_an_error_that_nobody_thought_of_costs_one_file(videos, tmp_path):
    def odd(unit, config):
        if "b-short" in unit.item.name:
            raise IndexError("no such plane")
        yield from curate_item(unit, config)

    run(videos, tmp_path / "clips", stage=odd)
    told = {Path(row["source"]).name: row for row in rejected(tmp_path / "clips")}
    assert (told["b-short.mp4"]["reason"], told["b-short.mp4"]["detail"]) == ("failed", "IndexError: no such plane")
    assert [r["episode"] is not None for r in manifest(tmp_path / "clips") if r["source"].endswith("c-copy.mp4")] == [
        True
    ]


def test_a_torn_line_is_dropped_a_wrong_one_is_told_and_a_lost_clip_is_made_anew(videos, whole, tmp_path):
    root = tmp_path / "clips"

    def until_three(units, config, folder, stage):
        for event in here(units, config, folder, stage):
            yield event
            if sum(1 for _ in folder.rglob("*.mp4")) == 3:
                raise Killed

    with pytest.raises(Killed):
        run(videos, root, executor=until_three)
    path = root / ".curation/journal.jsonl"
    lines = path.read_bytes()
    path.write_bytes(lines[:-20])
    next((root / ".curation").rglob("*.mp4")).unlink()
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    (broken / ".curation/journal.jsonl").write_bytes(b"{}\n" + lines)
    with pytest.raises(WamError, match=r"line 1 of .*journal\.jsonl"):
        run(videos, broken)
    run(videos, root)
    assert content(root) == content(whole)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda videos, root: run(videos, root, replace(SMALL, fps=5.0)), "fps = 10.0, as .* was begun with, got 5.0"),
        (lambda videos, root: run(videos.parent, root), "sources that .* was made of.*others"),
    ],
)
def test_a_folder_goes_on_only_with_what_it_was_begun_with(videos, whole, change, sentence):
    with pytest.raises(WamError, match=sentence):
        change(videos, whole)


def test_folders_of_something_else_and_nothing_left_are_one_sentence(videos, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(WamError, match="an empty folder"):
        run(videos, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(
        WamError, match=r"at least one clip that passes the filters, got none: .*still.*rejected\.parquet"
    ):
        run(videos, tmp_path / "clips", replace(SMALL, min_motion=1.0))
    assert len(rejected(tmp_path / "clips")) >= 5


def test_sources_that_are_gone_by_now_lose_no_clip(videos, tmp_path):
    raw = tmp_path / "videos"
    shutil.copytree(videos, raw)

    def until_done(units, config, folder, stage):
        yield from here(units, config, folder, stage)
        raise Killed

    with pytest.raises(Killed):
        run(raw, tmp_path / "clips", executor=until_done)
    (raw / "a-long.mp4").unlink()
    assert run(raw, tmp_path / "clips").episodes == 5
