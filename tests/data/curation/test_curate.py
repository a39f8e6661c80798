"""Raw video to a dataset: whole, and equal however it was made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.curation.raw import (
    SMALL,
    SMALL_WORDS,
    content,
    frames_of,
    manifest,
    outcome,
    rejected,
    run,
)
from wam.cli.main import main
from wam.contracts import WamError
from wam.data.curation.manifest import COLUMNS
from wam.data.curation.pipeline import Hooks, curate
from wam.data.curation.plan import plan
from wam.data.store import EpisodeStore


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
