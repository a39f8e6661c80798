"""Many small files into few: the data and videos of a dataset's single-episode files, joined up to the format's sizes.

Nothing is decoded: rows keep a row group for each episode, and video packets are copied with their times moved on. The
joined files get new numbers, so until the table of episodes points to them the old ones count.
"""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.data.episodes import Episode, VideoSpan, data_path, read_table, video_path
from wam.data.features import DatasetInfo
from wam.data.video import VideoInfo, corrupt, probe
from wam.files import write_bytes

MEGABYTE = 2**20


def pack(root: Path, info: DatasetInfo, episodes: Sequence[Episode]) -> list[Episode]:
    """Join files that hold one episode each and lie next to each other; returns the episodes at their new places.

    The old files stay; the caller removes them once the new places are on record.
    """
    found = _pack_data(root, info, list(episodes))
    for key in info.video_keys:
        found = _pack_videos(root, info, key, found)
    return found


def _pack_data(root: Path, info: DatasetInfo, episodes: list[Episode]) -> list[Episode]:
    alone = _alone([(episode.chunk, episode.file) for episode in episodes])
    sizes = [data_path(root, info, episode).stat().st_size for episode in episodes]
    number = 1 + max((episode.chunk * info.chunks_size + episode.file for episode in episodes), default=-1)
    for places in _groups(alone, sizes, limit=info.data_files_size_in_mb * MEGABYTE):
        tables = [read_table(data_path(root, info, episodes[place])) for place in places]
        if any(table.schema != tables[0].schema for table in tables):
            continue
        chunk, file = divmod(number, info.chunks_size)
        moved = [dataclasses.replace(episodes[place], chunk=chunk, file=file) for place in places]
        write_bytes(data_path(root, info, moved[0]), _join_tables(tables))
        for place, episode in zip(places, moved, strict=True):
            episodes[place] = episode
        number += 1
    return episodes


def _join_tables(tables: Sequence[pa.Table]) -> memoryview:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"compression": "snappy", "use_dictionary": True, "write_page_checksum": True}
    with pq.ParquetWriter(buffer, tables[0].schema, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=len(table))
    return buffer.getbuffer()


def _pack_videos(root: Path, info: DatasetInfo, key: str, episodes: list[Episode]) -> list[Episode]:
    spans = [episode.videos.get(key) for episode in episodes]
    alone = _alone([None if span is None else (span.chunk, span.file) for span in spans])
    paths = [None if span is None else video_path(root, info, key, span) for span in spans]
    sizes = [path.stat().st_size if path is not None else 0 for path in paths]
    number = 1 + max((span.chunk * info.chunks_size + span.file for span in spans if span is not None), default=-1)
    for places in _groups(alone, sizes, limit=info.video_files_size_in_mb * MEGABYTE):
        files = [probe(path) for place in places if (path := paths[place]) is not None]
        joined = _join_videos(files, fps=info.fps)
        if joined is None:
            continue
        chunk, file = divmod(number, info.chunks_size)
        begin, crc32 = 0, zlib.crc32(joined)
        moved = []
        for place, video in zip(places, files, strict=True):
            stop = begin + video.frames
            span = VideoSpan(chunk=chunk, file=file, start=begin / info.fps, stop=stop / info.fps, crc32=crc32)
            moved.append(dataclasses.replace(episodes[place], videos={**episodes[place].videos, key: span}))
            begin = stop
        path = video_path(root, info, key, moved[0].videos[key])
        write_bytes(path, joined)
        if not np.allclose(probe(path).times, np.arange(begin) / info.fps, atol=1e-6):
            raise corrupt(path, "times that moved while joining videos")
        for place, episode in zip(places, moved, strict=True):
            episodes[place] = episode
        number += 1
    return episodes


def _join_videos(files: Sequence[VideoInfo], *, fps: float) -> bytes | None:
    """Copy packets one file after the other; None if their encodings differ, so that one header does not fit all."""
    buffer, begin, header = io.BytesIO(), 0, None
    with av.open(buffer, "w", format="mp4") as target:
        stream: Any = None
        for video in files:
            with av.open(str(video.path)) as source:
                own: Any = source.streams.video[0]
                if stream is None:
                    header = own.codec_context.extradata
                    stream = target.add_stream_from_template(own)
                if own.codec_context.extradata != header or own.time_base != files[0].time_base or video.b_frames:
                    return None
                offset = round(begin / fps / own.time_base)
                for packet in source.demux(own):
                    if packet.size:
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = stream
                        target.mux(packet)
            begin += video.frames
    return buffer.getvalue()


def _alone(places: Sequence[tuple[int, int] | None]) -> list[bool]:
    """Which episodes have a file to themselves."""
    counts: dict[tuple[int, int] | None, int] = {}
    for place in places:
        counts[place] = counts.get(place, 0) + 1
    return [place is not None and counts[place] == 1 for place in places]


def _groups(alone: Sequence[bool], sizes: Sequence[int], *, limit: int) -> Iterator[list[int]]:
    """Neighbours that may be joined, two or more, up to the limit in bytes."""
    group: list[int] = []
    total = 0
    for place, (free, size) in enumerate(zip(alone, sizes, strict=True)):
        if not free or (group and total + size > limit):
            if len(group) > 1:
                yield group
            group, total = [], 0
        if free and size < limit:
            group.append(place)
            total += size
    if len(group) > 1:
        yield group
