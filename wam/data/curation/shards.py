"""Clips as WebDataset tar shards: for each clip `<id>.mp4`, `<id>.json` (its row of the manifest) and, if it has a
caption, `<id>.txt`, next to each other. The bytes depend on the clips alone, not on the clock or the user."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wam.files import write_bytes


def write_shards(
    folder: Path, rows: Sequence[Mapping[str, Any]], path_of: Callable[[str], Path], *, megabytes: int
) -> list[Path]:
    """rows: of the manifest. path_of: a clip's file by its id. A shard is closed once it holds so many megabytes."""
    shards: list[Path] = []
    buffer, tar = io.BytesIO(), None
    for row in rows:
        if tar is None:
            buffer = io.BytesIO()
            tar = tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        _add(tar, f"{row['id']}.mp4", path_of(row["id"]).read_bytes())
        _add(tar, f"{row['id']}.json", json.dumps(dict(row), ensure_ascii=False).encode())
        if row["caption"]:
            _add(tar, f"{row['id']}.txt", row["caption"].encode())
        if buffer.tell() >= megabytes << 20:
            shards.append(_close(tar, buffer, folder, len(shards)))
            tar = None
    if tar is not None:
        shards.append(_close(tar, buffer, folder, len(shards)))
    return shards


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))


def _close(tar: tarfile.TarFile, buffer: io.BytesIO, folder: Path, number: int) -> Path:
    tar.close()
    path = folder / f"clips-{number:06d}.tar"
    write_bytes(path, buffer.getbuffer())
    return path
