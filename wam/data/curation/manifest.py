"""The tables beside the dataset: `manifest.parquet`, a row for each clip, and `rejected.parquet`, what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from wam.data.atomic import write_parquet
from wam.data.curation.records import Clip, Rejection

MANIFEST, REJECTED = "manifest.parquet", "rejected.parquet"
COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("sha256", pa.string()),
        ("source", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("fps", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("frames", pa.int32()),
        ("file_bytes", pa.int64()),
        ("source_fps", pa.float64()),
        ("source_height", pa.int32()),
        ("source_width", pa.int32()),
        ("motion", pa.float64()),
        ("moving", pa.float64()),
        ("blur", pa.float64()),
        ("hash", pa.string()),
        ("duplicate_cluster", pa.string()),
        ("episode", pa.int64()),
        ("caption", pa.string()),
        ("licence", pa.string()),
    ]
)
"""duplicate_cluster: id of the clip that this one repeats, its own if it repeats none. episode: its place in the dataset,
null for duplicates that were dropped."""
_REJECTED = pa.schema(
    [
        ("source", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("clip", pa.string()),
    ]
)


def manifest_row(clip: Clip, *, leader: str, episode: int | None, caption: str) -> dict[str, Any]:
    known = {name: getattr(clip, name) for name in COLUMNS.names if hasattr(clip, name)}
    return {**known, "duplicate_cluster": leader, "episode": episode, "caption": caption}


def write_manifest(root: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in COLUMNS.names}
    write_parquet(root / MANIFEST, pa.table(columns, schema=COLUMNS))


def write_rejected(root: Path, rejections: Iterable[Rejection]) -> None:
    rows = sorted(rejections, key=lambda one: (one.source, -1.0 if one.start is None else one.start, one.reason))
    columns = {name: [getattr(row, name) for row in rows] for name in _REJECTED.names}
    write_parquet(root / REJECTED, pa.table(columns, schema=_REJECTED))
