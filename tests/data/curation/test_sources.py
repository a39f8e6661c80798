"""Folders, lists and shards give the same items on every machine, each once."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from wam.contracts import WamError
from wam.data.curation.sources import find_items


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def names(*roots: Path, **options) -> list[str]:
    return [item.name for item in find_items(roots, **options).items]


def test_a_folder_is_searched_at_any_depth_and_sorted(tmp_path):
    for name in ("b.mp4", "a/z.MKV", "a/c.webm", "notes.txt", "picture.png", "a/x.mp4.part"):
        put(tmp_path / "v" / name)
    assert names(tmp_path / "v") == ["v/a/c.webm", "v/a/z.MKV", "v/b.mp4"]


def test_ids_are_those_of_the_names_wherever_the_folder_lies(tmp_path):
    put(tmp_path / "v/a.mp4")
    before = find_items([tmp_path / "v"]).items
    shutil.move(tmp_path / "v", tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path / "deep")
    (tmp_path / "deep").mkdir(exist_ok=True)
    moved = tmp_path / "other" / "v"
    moved.parent.mkdir()
    shutil.move(tmp_path / "deep", moved)
    assert [item.id for item in find_items([moved]).items] == [item.id for item in before]


def test_roots_of_one_name_are_told_apart_and_overlapping_ones_count_once(tmp_path):
    put(tmp_path / "x/v/a.mp4")
    put(tmp_path / "y/v/a.mp4")
    assert names(tmp_path / "x/v", tmp_path / "y/v") == ["x/v/a.mp4", "y/v/a.mp4"]
    assert names(tmp_path / "x/v", tmp_path / "x/v/a.mp4", tmp_path / "x") == ["v/a.mp4"]


def test_what_lies_in_the_output_is_no_source(tmp_path):
    put(tmp_path / "v/a.mp4")
    put(tmp_path / "v/out/videos/b.mp4")
    assert names(tmp_path / "v", exclude=tmp_path / "v/out") == ["v/a.mp4"]


def test_a_list_names_files_licences_and_captions_and_missing_ones_are_recorded(tmp_path):
    put(tmp_path / "v/a.mp4")
    put(tmp_path / "v/ b .mp4")
    put(tmp_path / "list.txt", b"# mine\nv/a.mp4\n\nv/ b .mp4\nv/gone.mp4\n")
    found = find_items([tmp_path / "list.txt"])
    assert [item.name for item in found.items] == ["list.txt/v/a.mp4", "list.txt/v/ b .mp4"]
    assert [(one.source, one.reason) for one in found.rejections] == [("list.txt/v/gone.mp4", "unreadable")]
    assert "line 5" in found.rejections[0].detail
    row = {"path": str(tmp_path / "v/a.mp4"), "license": "CC0", "caption": "wash"}
    put(tmp_path / "list.jsonl", json.dumps(row).encode())
    (item,) = find_items([tmp_path / "list.jsonl"]).items
    assert (item.licence, item.caption, item.path) == ("CC0", "wash", tmp_path / "v/a.mp4")


def test_a_shard_gives_its_videos_with_what_lies_beside_them(tmp_path):
    path = shard(
        tmp_path / "s/000.tar",
        {
            "clips/a.mp4": b"video a",
            "clips/a.json": json.dumps({"licence": "CC BY 4.0", "caption": "old"}).encode(),
            "clips/b.txt": b"cut bread\n",
            "clips/b.left.mp4": b"video b",
            "clips/c.jpg": b"picture",
        },
    )
    a, b = find_items([tmp_path / "s"]).items
    assert (a.name, a.licence, a.caption) == ("s/000.tar/clips/a.mp4", "CC BY 4.0", "old")
    assert (b.name, b.licence, b.caption) == ("s/000.tar/clips/b.left.mp4", "", "cut bread")
    for item, content in ((a, b"video a"), (b, b"video b")):
        assert item.offset is not None
        assert path.read_bytes()[item.offset : item.offset + item.size] == content


def test_a_torn_shard_gives_the_members_before_the_tear(tmp_path):
    path = shard(tmp_path / "s.tar", {"a.mp4": b"a" * 2000, "b.mp4": b"b" * 2000, "c.mp4": b"c" * 2000})
    path.write_bytes(path.read_bytes()[:4500])
    found = find_items([path])
    assert [item.name for item in found.items] == ["s.tar/a.mp4"]
    assert [one.reason for one in found.rejections] == ["damaged"]
    put(tmp_path / "no.tar", b"no tar" * 500)
    assert [one.reason for one in find_items([tmp_path / "no.tar"]).rejections] == ["damaged"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda root: root / "gone", "gone, got nothing there"),
        (lambda root: put(root / "a.zip"), "uncompressed tar"),
        (lambda root: put(root / "empty/notes.md").parent, "videos in .*, got none"),
        (lambda root: put(root / "bad.jsonl", b"{"), "JSON object in line 1"),
        (lambda root: put(root / "bad.jsonl", b'{"file": 3}'), '"path" in line 1'),
    ],
)
def test_what_is_no_source_is_one_sentence(tmp_path, make, sentence):
    with pytest.raises(WamError, match=sentence):
        find_items([make(tmp_path)])
