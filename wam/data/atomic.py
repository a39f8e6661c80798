"""Parquet files that appear whole or not at all, and the hold that lets one process write a folder."""

from __future__ import annotations

import fcntl
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wam.contracts import expected
from wam.files import write_bytes


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
