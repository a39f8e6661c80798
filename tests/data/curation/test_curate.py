"""Raw video to a dataset: whole, equal however it was made, and resumable whatever happened."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.curation.raw import SMALL, deadly, frames_of, full_disk, here, outcome, scene, write
from wam.cli.main import main
from wam.contracts import WamError
from wam.data.atomic import hold
from wam.data.curation.clips import curate_item
from wam.data.curation.config import CurateConfig
from wam.data.curation.journal import Journal
from wam.data.curation.manifest import COLUMNS
from wam.data.curation.pipeline import Curated, Hooks, curate
from wam.data.curation.plan import plan
from wam.data.store import EpisodeStore


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Five files: a long one with two scenes, a short one, a copy of it, one that stands still, and one that is torn."""
    root = tmp_path_factory.mktemp("raw") / "videos"
    write(root / "a-long.mp4", np.concatenate([scene(70, seed=1), scene(60, seed=2)]))
    write(root / "b-short.mp4", scene(40, seed=3))
    write(root / "c-copy.mp4", scene(40, seed=3), options={"crf": "26"})
    write(root / "d-still.mp4", scene(40, seed=4, moves=False))
    (root / "e-torn.mp4").write_bytes(b"nothing good")
    return root


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory) -> Path:
    """The dataset that they give, made without interruption."""
    root = tmp_path_factory.mktemp("whole") / "clips"
    curate([videos], root, SMALL, executor=here)
    return root


def run(videos: Path, root: Path, config: CurateConfig = SMALL, **options) -> Curated:
    return curate([videos], root, config, **{"executor": here, **options})


def manifest(root: Path) -> list[dict]:
    return pq.read_table(root / "manifest.parquet").to_pylist()


def rejected(root: Path) -> list[dict]:
    return pq.read_table(root / "rejected.parquet").to_pylist()


def content(root: Path) -> dict[str, str]:
    """What the folder holds, by file, its own bookkeeping apart."""
    files = [path for path in root.rglob("*") if path.is_file() and ".curation" not in path.parts]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


def test_the_dataset_opens_and_shows_the_clips_of_the_manifest(whole, videos, tmp_path):
    store, rows = EpisodeStore(whole), manifest(whole)
    assert store.action_free
    assert pq.read_schema(whole / "manifest.parquet") == COLUMNS
    kept = [row for row in rows if row["episode"] is not None]
    assert [row["episode"] for row in kept] == list(range(len(store)))
    assert [row["frames"] for row in kept] == [episode.length for episode in store.episodes]
    clips = {clip.id: clip for path in sorted(videos.glob("[a-c]*")) for clip in _named(path)}
    for row in kept:
        clip = clips[row["source"].partition("/")[2] + f"@{row['start']:.3f}"]
        assert row["sha256"] == clip.sha256
        assert np.array_equal(store.frames("video", row["episode"]), frames_of(clip, tmp_path))
        assert store.episodes[row["episode"]].extra["clip"] == row["id"]
    assert store.statistics["observation.images.video"].mean.shape == (3, 1, 1)


def _named(path: Path) -> list:
    return [replace(clip, id=f"{path.name}@{clip.start:.3f}") for clip in outcome(path)[0]]


def test_duplicates_and_what_the_filters_left_out_are_on_record(whole):
    by_source = {}
    for row in manifest(whole):
        by_source.setdefault(Path(row["source"]).name, []).append(row)
    (short,), (copy,) = by_source["b-short.mp4"], by_source["c-copy.mp4"]
    assert copy["duplicate_cluster"] == short["id"] == short["duplicate_cluster"]
    assert copy["episode"] is None
    assert len(by_source["a-long.mp4"]) == 4
    told = {(Path(row["source"]).name, row["reason"]) for row in rejected(whole)}
    assert {("c-copy.mp4", "duplicate"), ("d-still.mp4", "still"), ("e-torn.mp4", "unreadable")} <= told


def test_many_clips_lie_in_few_files_of_limited_length(videos, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("wam.data.curation.dataset._CLIPS_PER_FILE", 2)
    run(videos, tmp_path / "clips")
    store, one_file = EpisodeStore(tmp_path / "clips"), EpisodeStore(whole)
    assert len(list((whole / "videos").rglob("*.mp4"))) == 1
    assert len(list((tmp_path / "clips/videos").rglob("*.mp4"))) == 3
    for episode in range(len(store)):
        assert np.array_equal(store.frames("video", episode), one_file.frames("video", episode))


def test_duplicates_may_stay(videos, tmp_path):
    marked = run(videos, tmp_path / "marked", replace(SMALL, duplicates="mark"))
    ignored = run(videos, tmp_path / "ignored", replace(SMALL, duplicates="off"))
    assert marked.episodes == ignored.episodes == marked.clips
    assert len({row["duplicate_cluster"] for row in manifest(tmp_path / "marked")}) == marked.clips - 1
    assert len({row["duplicate_cluster"] for row in manifest(tmp_path / "ignored")}) == ignored.clips


def test_processes_give_what_one_process_gives(videos, whole, tmp_path):
    curate([videos], tmp_path / "clips", replace(SMALL, processes=2))
    assert content(tmp_path / "clips") == content(whole)


def test_a_finished_folder_is_left_as_it_is(videos, whole):
    before = content(whole)
    again = run(videos, whole)
    assert again.new == 0
    assert content(whole) == before


SMALL_WORDS = ("size=[64,64]", "min_seconds=0.5", "max_seconds=2", "min_side=32", "processes=1")


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
from tests.data.curation.raw import SMALL, slow
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


def test_shards_come_out_and_go_in_again(videos, whole, tmp_path):
    import tarfile

    run(videos, tmp_path / "clips", replace(SMALL, shard_megabytes=1))
    (shard,) = sorted((tmp_path / "clips/shards").glob("*.tar"))
    kept = [row for row in manifest(tmp_path / "clips") if row["episode"] is not None]
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        assert names == [f"{row['id']}.{ending}" for row in kept for ending in ("mp4", "json")]
        for row in kept:
            video, facts = (tar.extractfile(f"{row['id']}.{ending}") for ending in ("mp4", "json"))
            assert video is not None
            assert facts is not None
            assert hashlib.sha256(video.read()).hexdigest() == row["sha256"]
            assert json.load(facts) == row
    again = run(tmp_path / "clips/shards", tmp_path / "again", replace(SMALL, licence="none"))
    assert again.episodes == len(kept)
    assert [row["licence"] for row in manifest(tmp_path / "again")] == ["unknown"] * len(kept), "as the shard says"


def test_hooks_give_captions_and_find_duplicates_and_are_asked_once(videos, tmp_path):
    asked = []

    def caption(frames):
        asked.append(frames.shape)
        return f"brightness {frames.mean():.0f}"

    def embed(frames):
        return np.array([1.0, 0.0]) if len(asked) == 0 else np.array([0.0, 1.0])

    done = run(videos, tmp_path / "clips", hooks=Hooks(caption=caption, embed=embed))
    assert done.episodes == 1, "the embeddings say that all clips are alike"
    assert asked == [(8, 64, 64, 3)]
    (kept,) = [row for row in manifest(tmp_path / "clips") if row["episode"] is not None]
    assert kept["caption"].startswith("brightness")
    assert EpisodeStore(tmp_path / "clips").episodes[0].task == kept["caption"]


def test_a_plan_says_what_it_will_take_and_leaves_nothing(videos, tmp_path):
    found = plan([videos], SMALL, sample=4)
    assert (found.sources, found.sampled) == (5, 4)
    assert found.low <= found.core_hours <= found.high
    assert found.gigabytes > 0
    assert list(tmp_path.iterdir()) == []
    assert plan([videos], SMALL, hours=100, sample=5).seconds == 360_000
    with pytest.raises(WamError, match="a readable video in the sample"):
        plan([videos / "e-torn.mp4"], SMALL)


def test_functions_are_named_on_the_command_line(videos, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_captions.py").write_text("words = 3\n\ndef describe(frames):\n    return f'{len(frames)} frames'\n")
    monkeypatch.chdir(tmp_path)
    words = ["data", "curate", str(videos / "b-short.mp4"), "--output", "clips", *SMALL_WORDS]
    assert main([*words, "--caption", "my_captions:words"]) == 2
    assert "a function 'words' in my_captions" in capsys.readouterr().err
    assert main([*words, "--caption", "my_captions:describe"]) == 0
    assert [row["caption"] for row in manifest(tmp_path / "clips")] == ["8 frames"]


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


def test_the_command_says_what_came_and_bad_input_is_one_sentence(videos, tmp_path, capsys):
    assert main(["data", "curate", str(videos), *SMALL_WORDS, "--output", str(tmp_path / "clips"), "camera=eye"]) == 0
    assert "5 episodes" in capsys.readouterr().out
    assert EpisodeStore(tmp_path / "clips").cameras == ("eye",)
    for words, sentence in (
        ([str(videos)], "--output FOLDER"),
        ([str(videos), "--output", str(tmp_path / "new"), "fsp=5"], "fps"),
        ([str(videos), "--output", str(tmp_path / "new"), "size=[65,64]"], "even height"),
        ([str(videos), "--output", str(tmp_path / "new"), "--caption", "nowhere:at_all"], "module 'nowhere'"),
        ([str(tmp_path / "gone"), "--output", str(tmp_path / "new")], "nothing there"),
    ):
        assert main(["data", "curate", *words]) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert "Traceback" not in said
        assert len(said.strip().splitlines()) == 1
