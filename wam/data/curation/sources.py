"""Where raw video comes from: folders, single files, lists and WebDataset tar shards, as one list of items."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wam.contracts import expected
from wam.data.curation.records import Item, Rejection

ENDINGS = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp",
    ".ogv", ".mxf", ".vob",
})  # fmt: skip
LISTS, SHARD = (".txt", ".jsonl"), ".tar"
_SIDECAR_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """items: in the order of the dataset to be. rejections: what was named but is not there or cannot be opened."""

    items: list[Item]
    rejections: list[Rejection]


def find_items(roots: Sequence[Path | str], *, exclude: Path | None = None) -> Found:
    """Every video of the roots, each once, root by root and sorted by name.

    A root is a folder (searched at any depth, shards included), a video, a `.tar` shard, or a list: `.txt` with a path
    on each line, `.jsonl` with {"path", "licence", "caption"}, paths relative to the list. In a shard, files with the
    same name up to the first dot belong together: a video, its caption (`.txt`) and its facts (`.json` with "licence"
    and "caption"). exclude: a folder to leave alone, such as the output.

    Raises WamError for a root that is not there, and where there is no video at all.
    """
    paths = [Path(root) for root in roots]
    found: dict[tuple[Path, int | None], Item] = {}
    rejections: list[Rejection] = []
    for path, label in zip(paths, _labels(paths), strict=True):
        for one in _under(path, label, exclude and exclude.resolve()):
            if isinstance(one, Rejection):
                rejections.append(one)
            else:
                found.setdefault((one.path, one.offset), one)
    if not found and not rejections:
        raise expected(
            f"videos in {', '.join(map(str, paths)) or 'some folder'}",
            got="none",
            do="give folders, lists or tar shards",
        )
    return Found(items=list(found.values()), rejections=rejections)


def readable(name: str) -> str:
    """A file's name as text that any file can hold; bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def item_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest endings of the roots' paths that tell them apart, so that names do not depend on the machine."""
    whole = [path.resolve() for path in paths]
    for length in range(1, max((len(path.parts) for path in whole), default=1) + 1):
        labels = ["/".join(path.parts[-length:]).lstrip("/") for path in whole]
        if len(set(labels)) == len(set(whole)):
            break
    return [readable(label) for label in labels] if whole else []


def _under(path: Path, label: str, exclude: Path | None) -> Iterator[Item | Rejection]:
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.suffix.lower() in ENDINGS or p.suffix.lower() == SHARD)
        for file in sorted(inside, key=lambda p: os.fsencode(p)):
            if file.is_file() and not (exclude and file.resolve().is_relative_to(exclude)):
                name = f"{label}/{readable(file.relative_to(path).as_posix())}"
                yield from _shard(file, name) if file.suffix.lower() == SHARD else (_file(file, name),)
    elif not path.is_file():
        raise expected(f"a folder, video, list or tar shard at {path}", got="nothing there", do="check the path")
    elif path.suffix.lower() in LISTS:
        yield from _listed(path, label)
    elif path.suffix.lower() == SHARD:
        yield from _shard(path, label)
    elif path.suffix.lower() in ENDINGS:
        yield _file(path, label)
    else:
        raise expected(
            f"a folder, a video, a list ({', '.join(LISTS)}) or an uncompressed tar shard",
            got=readable(str(path)),
            do="unpack or convert it first",
        )


def _file(path: Path, name: str, *, licence: str = "", caption: str = "") -> Item:
    size = path.stat().st_size
    return Item(id=item_id(name), name=name, path=path.resolve(), size=size, licence=licence, caption=caption)


def _listed(path: Path, label: str) -> Iterator[Item | Rejection]:
    for number, line in enumerate(path.read_bytes().decode("utf-8", "surrogateescape").splitlines(), start=1):
        if not line.strip() or (path.suffix.lower() == ".txt" and line.startswith("#")):
            continue
        entry = _entry(line, where=f"line {number} of {path}") if path.suffix.lower() == ".jsonl" else {"path": line}
        file = path.parent / entry["path"]
        name = f"{label}/{readable(entry['path']).removeprefix('./').lstrip('/')}"
        if file.is_file():
            yield _file(file, name, licence=_word(entry, "licence", "license"), caption=_word(entry, "caption"))
        else:
            detail = f"named in line {number} of {path.name}, but no such file"
            yield Rejection(item=item_id(name), source=name, reason="unreadable", detail=detail)


def _entry(line: str, *, where: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise expected(f"a JSON object in {where}", got=str(error), do="correct the list") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise expected(f'a JSON object with "path" in {where}', got=line[:80], do="correct the list")
    return entry


def _word(entry: Mapping[str, Any], *names: str) -> str:
    return next((entry[name] for name in names if isinstance(entry.get(name), str)), "")


def _shard(path: Path, label: str) -> Iterator[Item | Rejection]:
    """The videos of a tar file, found from its headers alone."""
    members: list[tarfile.TarInfo] = []
    damage = ""
    try:
        with tarfile.open(path, "r:") as tar:
            size = path.stat().st_size
            try:
                for member in tar:
                    if member.isreg() and member.offset_data + member.size <= size:
                        members.append(member)
            except tarfile.TarError as error:
                damage = str(error)
            beside = {m.name: m for m in members if m.name.endswith((".json", ".txt")) and m.size <= _SIDECAR_BYTES}
            for member in members:
                if Path(member.name).suffix.lower() in ENDINGS:
                    facts = _facts(tar, beside, _key(member.name))
                    name = f"{label}/{readable(member.name)}"
                    yield Item(
                        id=item_id(name), name=name, path=path.resolve(), size=member.size, offset=member.offset_data,
                        licence=_word(facts, "licence", "license"), caption=_word(facts, "caption"),
                    )  # fmt: skip
    except (tarfile.TarError, OSError) as error:
        damage = str(error)
    if damage:
        detail = f"the tar file is damaged ({damage}); the members before that are taken"
        yield Rejection(item=item_id(label), source=label, reason="damaged", detail=detail)


def _key(name: str) -> str:
    """WebDataset's key: the path up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".")[0]


def _facts(tar: tarfile.TarFile, beside: Mapping[str, tarfile.TarInfo], key: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for ending in (".txt", ".json"):
        member = beside.get(key + ending)
        content = tar.extractfile(member) if member is not None else None
        if content is None:
            continue
        text = content.read().decode("utf-8", "replace")
        if ending == ".txt":
            found["caption"] = text.strip()
        else:
            try:
                facts = json.loads(text)
            except ValueError:
                continue  # some other file of that name; the video itself is what is asked for
            found |= facts if isinstance(facts, dict) else {}
    return found
