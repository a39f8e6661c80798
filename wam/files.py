"""Files that appear whole or not at all, and their fingerprints."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wam.contracts import WamError, expected

TEMPORARY = ".part"
"""The ending of a file that is still being written."""


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data` beside `path`, flush it to the disk, then rename: a reader sees the old file or the new one.

    Raises WamError if the disk is full, read-only or over quota; nothing half-written stays.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise disk_error(path, error) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def disk_error(path: Path, error: OSError) -> WamError:
    """The sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return expected(
            f"room on the disk for {path}",
            got=os.strerror(error.errno),
            do="free some space and resume; what was finished earlier is kept",
        )
    return expected(f"to be able to write {path}", got=str(error), do="check the folder and its permissions")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
