"""Collecting a dataset: experts with recovery noise and play, made by several processes, written in one order.

Chance belongs to the episode, not to the process, so any number of processes gives the same dataset. Whatever is
written stays: after an interruption, even kill -9, `resume` continues with the next episode.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wam.contracts import Observation, expected
from wam.data.depth import DepthEncoding
from wam.data.features import ACTION, INFO_PATH, STATE, Feature
from wam.data.rows import depth_key, image_key
from wam.data.video import VideoEncoding
from wam.data.writer import EpisodeWriter, video_feature
from wam.simulation.config import CollectConfig
from wam.simulation.environment import Environment
from wam.simulation.workers import recordings


@dataclass(frozen=True, kw_only=True)
class Collected:
    """episodes and frames: in the dataset; new: episodes made by this call, in so many seconds."""

    root: Path
    episodes: int
    frames: int
    new: int
    seconds: float


def collect(
    config: CollectConfig,
    root: Path | str,
    *,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Collect a LeRobot v3.0 dataset into `root`, showing progress and the time left.

    progress: called with (episodes done, episodes in all) instead of drawing a bar.
    Raises WamError on wrong settings, an expert that keeps failing, a full disk or a dead worker, and
    KeyboardInterrupt on SIGINT; the episodes written so far are kept and `resume=True` goes on from there.
    """
    started, root, jobs = time.monotonic(), Path(root), config.jobs()
    if resume:
        _check_same(config, root)
    with (
        _writer(config, root, resume=resume) as writer,
        _Bar(len(jobs), progress) as bar,
        closing(recordings(config, jobs[len(writer) :], processes=config.processes or os.cpu_count() or 1)) as made,
    ):
        before = len(writer)
        bar.update(before)
        try:
            for recorded in made:
                writer.add_episode(
                    images=recorded.images,
                    columns=recorded.columns,
                    task=recorded.task,
                    extra=recorded.extra,
                    depth=recorded.depth,
                )
                bar.update(len(writer))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {len(writer)} of {len(jobs)} episodes; they are kept in {root}, resume to go on"
            ) from None
    return Collected(
        root=root,
        episodes=len(writer),
        frames=writer.info.total_frames,
        new=len(writer) - before,
        seconds=time.monotonic() - started,
    )


def _writer(config: CollectConfig, root: Path, *, resume: bool) -> EpisodeWriter:
    for name in config.environments[1:]:
        config.make(name).close()  # a wrong name shows now, not after an hour
    environment = config.make(config.environments[0])
    observation = environment.reset(0)
    space, family = environment.action_space, environment.name.partition("/")[0]
    cameras = {
        name: {"height": image.shape[0], "width": image.shape[1], **_geometry(observation, name)}
        for name, image in observation.images.items()
    }
    known = {
        "action_space": space.to_dict(),
        "embodiment": family,
        "environment": family,
        "state_names": list(environment.state_names),
        "cameras": cameras,
        "collection": config.fingerprint(),
    }
    features = _features(environment, observation)
    environment.close()
    return EpisodeWriter(
        root, fps=space.rate_hz, features=features, robot_type=family, extra={"wam": known}, resume=resume
    )


def _geometry(observation: Any, camera: str) -> dict[str, Any]:
    """The camera's (3, 3) and (4, 4) matrices, where the environment knows them."""
    found = {"intrinsics": observation.intrinsics, "extrinsics": observation.extrinsics}
    return {key: by_camera[camera].tolist() for key, by_camera in found.items() if by_camera is not None}


def _features(environment: Environment, observation: Observation) -> dict[str, Feature]:
    space = environment.action_space
    rate, state = space.rate_hz, len(environment.get_state())
    numbers = {
        STATE: Feature(dtype="float32", shape=(environment.state_dim,), names=list(environment.state_names)),
        ACTION: Feature(dtype="float32", shape=(space.dim,), names=list(space.names)),
        "sim.state": Feature(dtype="float64", shape=(state,)),
        "next.reward": Feature(dtype="float32", shape=(1,)),
        "next.success": Feature(dtype="bool", shape=(1,)),
    }
    videos = {
        image_key(name): video_feature(VideoEncoding().info(height=image.shape[0], width=image.shape[1], fps=rate))
        for name, image in observation.images.items()
    }
    maps = {
        depth_key(name): video_feature(DepthEncoding().info(height=metres.shape[0], width=metres.shape[1], fps=rate))
        for name, metres in (observation.depth or {}).items()
    }
    return numbers | videos | maps


def _check_same(config: CollectConfig, root: Path) -> None:
    """Going on with other settings would mix two collections: name the first setting that differs."""
    path = root / INFO_PATH
    if not path.is_file():
        return
    before = json.loads(path.read_text()).get("wam", {}).get("collection")
    now = config.fingerprint()
    for key in now:
        if before is None or before.get(key) != now[key]:
            raise expected(
                f"{key} = {'unknown' if before is None else before.get(key)}, as {root} was begun with",
                got=now[key],
                do="resume with the same settings, or collect into another folder",
            )


class _Bar:
    """A progress bar with the time left, or a caller's function in its place."""

    def __init__(self, total: int, report: Callable[[int, int], None] | None) -> None:
        self.total, self.report = total, report
        self.bar = Progress(
            TextColumn("collecting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            disable=report is not None,
        )
        self.task = self.bar.add_task("collecting", total=total)

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, done: int) -> None:
        if self.report is not None:
            self.report(done, self.total)
        self.bar.update(self.task, completed=done)
