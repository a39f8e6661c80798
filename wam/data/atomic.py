"""Files that appear whole or not at all: every byte the data room writes goes through here."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wam.contracts import WamError, expected

TEMPORARY = ".part"  # the ending of a file that is still being written


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


def write_parquet(path: Path, table: pa.Table, *, row_group_size: int | None = None) -> None:
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="snappy",
        use_dictionary=True,
        row_group_size=row_group_size,
        write_page_checksum=True,  # so that a flipped bit is found when it is read
    )
    write_bytes(path, buffer.getbuffer())


def disk_error(path: Path, error: OSError) -> WamError:
    """The sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return expected(
            f"room on the disk for {path}",
            got=os.strerror(error.errno),
            do="free some space and resume; episodes finished earlier are kept",
        )
    return expected(f"to be able to write {path}", got=str(error), do="check the folder and its permissions")


def hold(root: Path) -> Any:
    """An exclusive hold on the folder, let go by the system when the process ends, however it ends."""
    file = (root / ".writer.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise expected(
            f"to be the only writer of {root}", got="another one at work", do="wait for it to end"
        ) from error
    return file
