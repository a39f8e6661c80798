"""`convert`: any known format into a LeRobot v3.0 folder, episode by episode, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import ActionSpace, WamError, expected
from wam.data.convert import annotated, hdf5, lerobot_v2, rlds, videos
from wam.data.convert.frames import Flip, Reshape
from wam.data.convert.source import Source, SourceEpisode
from wam.data.features import INFO_PATH, DatasetInfo, Feature
from wam.data.video import VideoEncoding
from wam.data.writer import EpisodeWriter

FORMATS = ("lerobot_v2", "rlds", "hdf5", "annotated", "videos")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written: the target folder, its episodes and frames, and what was trimmed or left out, in sentences."""

    root: Path
    format: str
    episodes: int
    frames: int
    notes: tuple[str, ...] = ()


def convert(
    source: Path | str,
    target: Path | str,
    *,
    format: str = "auto",
    fps: float | None = None,
    cameras: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    flip: Flip = "none",
    limit: int | None = None,
    task: str | None = None,
    action_space: ActionSpace | None = None,
    skip_damaged: bool = False,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write the episodes of `source` to the LeRobot v3.0 folder `target`.

    format: one of FORMATS, or "auto" to tell it from the files. fps: needed by RLDS and by HDF5 without a control rate,
    for videos the rate to resample to; elsewhere a correction of the recorded rate. cameras: those to keep (default
    all). image_size: (height, width) to cover and crop to. flip: turns every image, as the doctor advises. limit: the
    first episodes only. task: a sentence for episodes that have none. action_space: stored beside the data.
    skip_damaged: leave out episodes that cannot be read, naming them in the notes, instead of stopping.
    resume: go on after an interrupted conversion. progress: called with (done, total).

    Raises WamError, one sentence, for an unknown or damaged source.
    """
    source, target = Path(source), Path(target)
    name = detect_format(source) if format == "auto" else format
    opened = open_source(source, name, fps=fps, image_size=image_size)
    total = len(opened) if limit is None else min(limit, len(opened))
    reshape = Reshape(size=image_size, flip=flip)
    notes = list(opened.notes)
    writer: EpisodeWriter | None = None
    done = _finished(target, name) if resume else 0
    try:
        for index in range(done, total):
            try:
                episode = _prepared(opened[index], cameras=cameras, reshape=reshape, task=task)
            except WamError as error:
                if not skip_damaged:
                    raise
                notes.append(f"left out episode {index}: {error}")
                continue
            notes += [f"episode {index}: {note}" for note in episode.notes]
            if writer is None:
                writer = _writer(target, opened, episode, name, action_space, resume)
            extra = {**episode.extra, "source_index": index, "note": "; ".join(episode.notes)}
            writer.add_episode(images=episode.images, columns=episode.columns, task=episode.task, extra=extra)
            if progress is not None:
                progress(index + 1, total)
        if writer is not None:
            writer.finalize()
    finally:
        if writer is not None:
            writer.close()
    if not (target / INFO_PATH).is_file():
        why = (notes or ["no episodes"])[-1]
        raise expected(f"at least one readable episode in {source}", got=f"none of {total}", do=f"see why: {why}")
    info = DatasetInfo.load(target)
    return Conversion(
        root=target, format=name, episodes=info.total_episodes, frames=info.total_frames, notes=tuple(notes)
    )


def detect_format(source: Path) -> str:
    """The format's name, from the files that are there."""
    if not source.exists():
        raise expected(f"a dataset at {source}", got="no such file or folder", do="check the path")
    info = source / INFO_PATH
    if info.is_file():
        try:
            version = str(json.loads(info.read_text()).get("codebase_version", ""))
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
            raise expected(f"a JSON object in {info}", got=str(error), do="restore the file") from error
        if version.startswith("v2"):
            return "lerobot_v2"
        raise expected(
            "a format to convert", got=f"LeRobot {version} at {source}", do="v3.0 is read directly; nothing to do"
        )
    if rlds.find_shards(source):
        return "rlds"
    if hdf5.find_files(source):
        return "hdf5"
    if annotated.find_annotated(source):
        return "annotated"
    if videos.find_videos(source):
        return "videos"
    raise expected(
        f"a dataset of a known format ({', '.join(FORMATS)}) at {source}",
        got="no meta/info.json, *.tfrecord*, *.hdf5 or videos",
        do="check the path, or name the format",
    )


def open_source(
    source: Path, format: str, *, fps: float | None = None, image_size: tuple[int, int] | None = None
) -> Source:
    """The reader of a format. `fps` overrides the recorded rate where one is recorded."""
    if not source.exists():
        raise expected(f"a dataset at {source}", got="no such file or folder", do="check the path")
    openers: Mapping[str, Callable[[], Source]] = {
        "lerobot_v2": lambda: lerobot_v2.LerobotV2Source(source),
        "rlds": lambda: rlds.RldsSource(source, fps=fps),
        "hdf5": lambda: hdf5.Hdf5Source(source, fps=fps),
        "annotated": lambda: annotated.AnnotatedVideoSource(source, fps=fps),
        "videos": lambda: videos.VideoFolderSource(source, fps=fps, image_size=image_size),
    }
    if format not in openers:
        raise expected(f"a format among {', '.join(FORMATS)} or auto", got=repr(format), do="name one of them")
    opened = openers[format]()
    if fps is not None:
        opened.fps = fps
    return opened


def _prepared(
    episode: SourceEpisode, *, cameras: Sequence[str] | None, reshape: Reshape, task: str | None
) -> SourceEpisode:
    """The episode with the wanted cameras in the wanted shape; sides are cut to even lengths, which H.264 needs."""
    kept = episode.images if cameras is None else {}
    for camera in cameras or ():
        if camera not in episode.images:
            raise expected(f"cameras among {sorted(episode.images)}", got=repr(camera), do="name one of these")
        kept = {**kept, camera: episode.images[camera]}
    images = {k: reshape(v) for k, v in kept.items()}
    images = {k: v[:, : v.shape[1] // 2 * 2, : v.shape[2] // 2 * 2] for k, v in images.items()}
    return SourceEpisode(
        images=images,
        columns=episode.columns,
        task=episode.task or task or "",
        extra=episode.extra,
        notes=episode.notes,
    )


def _writer(
    target: Path, source: Source, first: SourceEpisode, name: str, space: ActionSpace | None, resume: bool
) -> EpisodeWriter:
    encoding = VideoEncoding()
    features: dict[str, Feature] = {}
    for key, value in first.columns.items():
        names = source.names.get(key)
        if space is not None and key == "action":
            names = space.names
        fits = names is not None and value.ndim == 2 and len(names) == value.shape[1]
        features[key] = Feature(
            dtype=str(value.dtype), shape=value.shape[1:] or (1,), names=list(names) if names and fits else None
        )
    for camera, frames in first.images.items():
        height, width = frames.shape[1:3]
        features[f"observation.images.{camera}"] = Feature(
            dtype="video", shape=(height, width, 3), names=["height", "width", "channels"],
            info=encoding.info(height=height, width=width, fps=source.fps),
        )  # fmt: skip
    extra: dict[str, Any] = {"converted_from": {"format": name, "notes": list(source.notes)}}
    return EpisodeWriter(
        target, fps=source.fps, features=features, robot_type=source.robot_type, action_space=space,
        extra=extra, encoding=encoding, resume=resume,
    )  # fmt: skip


def _finished(target: Path, format: str) -> int:
    """The index at which an interrupted conversion goes on."""
    if not (target / INFO_PATH).is_file():
        return 0
    from wam.data.store import EpisodeStore

    store = EpisodeStore(target)
    made_from = (store.info.extra.get("converted_from") or {}).get("format")
    if made_from != format:
        raise expected(
            f"a dataset converted from {format} at {target}", got=f"one from {made_from}", do="choose another target"
        )
    return max((int(np.asarray(e.extra.get("source_index", -1))) for e in store.episodes), default=-1) + 1
