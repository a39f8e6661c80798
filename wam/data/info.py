"""What `wam data info` and `wam data stats` say of a dataset: as a dictionary for programs and as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wam.data.features import STATISTICS_PATH
from wam.data.splits import task_of
from wam.data.statistics import Statistics, compute_statistics
from wam.data.store import EpisodeStore
from wam.files import write_json


def describe(root: Path | str) -> dict[str, Any]:
    """Everything about a dataset that its metadata and the first episode's files tell; no frame is decoded."""
    store = EpisodeStore(root)
    info, space = store.info, store.info.action_space
    lengths = [episode.length for episode in store.episodes]
    size = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    cameras = {}
    for camera in store.cameras:
        height, width = info.features[info.camera_key(camera)].shape[:2]
        there = sum(store.has_video(camera, episode) for episode in store.episodes)
        cameras[camera] = {
            "height": height,
            "width": width,
            "episodes": there,
            "decoder": _decoder(store, camera),
            "depth": camera in info.depth_keys,
        }
    return {
        "root": str(root),
        "episodes": len(store),
        "frames": store.total_frames,
        "fps": info.fps,
        "hours": store.total_frames / info.fps / 3600,
        "megabytes": size / 2**20,
        "robot_type": info.robot_type,
        "embodiment": info.embodiment,
        "environment": info.environment,
        "action_free": store.action_free,
        "action_space": None if space is None else space.to_dict(),
        "cameras": cameras,
        "features": {name: {"dtype": f.dtype, "shape": list(f.shape)} for name, f in info.numeric.items()},
        "length": {"min": min(lengths or [0]), "mean": float(np.mean(lengths or [0])), "max": max(lengths or [0])},
        "tasks": dict(Counter(task_of(episode) for episode in store.episodes).most_common()),
        "sentences": len({sentence for episode in store.episodes for sentence in episode.tasks}),
        "play_episodes": sum(episode.play for episode in store.episodes),
        "successful_episodes": sum(bool(episode.extra.get("success")) for episode in store.episodes),
    }


def description_text(found: Mapping[str, Any], *, tasks: int = 20) -> str:
    """`describe` for the terminal."""
    length, space = found["length"], found["action_space"]
    lines = [
        f"{found['root']}: {found['episodes']} episodes, {found['frames']} frames at {found['fps']:g} fps "
        f"({60 * found['hours']:.1f} minutes, {found['megabytes']:.1f} MiB)",
        f"lengths      {length['min']} to {length['max']} frames, {length['mean']:.1f} on average",
        f"robot        {found['embodiment'] or 'not named'}; environment {found['environment'] or 'not named'}",
    ]
    for name, camera in found["cameras"].items():
        where = f"{camera['height']}x{camera['width']}, in {camera['episodes']} of {found['episodes']} episodes"
        depth = ", with depth" if camera["depth"] else ""
        lines.append(f"camera       {name}: {where}, read by {camera['decoder']}{depth}")
    for name, feature in found["features"].items():
        lines.append(f"column       {name}: {feature['dtype']} {tuple(feature['shape'])}")
    if found["action_free"]:
        lines.append("actions      none: an action-free dataset")
    elif space is None:
        lines.append("actions      recorded, but no action space says what they mean")
    else:
        lines.append(f"actions      {space['kind']} at {space['rate_hz']:g} Hz: {', '.join(space['names'])}")
    told = f"in {found['sentences']} sentences; {found['play_episodes']} episodes of play"
    lines.append(f"tasks        {len(found['tasks'])}, {told}")
    lines += [f"  {count:6d}  {task}" for task, count in list(found["tasks"].items())[:tasks]]
    if len(found["tasks"]) > tasks:
        lines.append(f"          and {len(found['tasks']) - tasks} more")
    return "\n".join(lines)


def update_statistics(root: Path | str) -> Statistics:
    """Compute a dataset's statistics from its columns, without decoding video, and write meta/stats.json."""
    store = EpisodeStore(root)
    found = compute_statistics(store)
    write_json(store.root / STATISTICS_PATH, found.to_json())
    return found


def statistics_text(statistics: Statistics) -> str:
    """One line for each dimension of each feature."""
    columns = ("min", "q01", "q50", "q99", "max", "mean", "std")
    lines = [f"{'feature':<44}" + "".join(f"{name:>12}" for name in columns)]
    for name, feature in statistics.items():
        size = feature.mean.size
        for place in range(size):
            label = name if size == 1 else f"{name}[{place}]"
            values = (getattr(feature, column).reshape(-1)[place] for column in columns)
            lines.append(f"{label:<44}" + "".join(f"{value:>12.5g}" for value in values))
    return "\n".join(lines)


def _decoder(store: EpisodeStore, camera: str) -> str:
    """What reads the first episode that has this camera's file."""
    for episode in store.episodes:
        if store.has_video(camera, episode):
            visual = store.info.features[store.info.camera_key(camera)]
            if visual.dtype == "image":
                return "pillow"
            whole, few = (store.backend_of(camera, episode, run=run) for run in (True, False))
            return whole if whole == few else f"{whole} (whole episodes) and {few} (windows)"
    return "none: no file is there"
