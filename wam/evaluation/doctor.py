"""`wam data doctor`: everything that can be found wrong with a dataset without training on it.

The static checks of `wam.data.checks`, and where the dataset names an environment that can be built here, a replay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wam.contracts import WamError
from wam.data.checks.finding import SEVERITIES, Finding, listed
from wam.data.checks.static import check_store
from wam.data.poses import CameraPose, camera_poses
from wam.data.store import EpisodeStore
from wam.evaluation import replay as replaying
from wam.simulation.environment import Environment

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """findings: the gravest first. done: which checks ran, in words. skipped: which did not, and why."""

    findings: tuple[Finding, ...]
    done: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def healthy(self) -> bool:
        """True if nothing was found that would spoil training."""
        return not self.errors

    def lines(self) -> list[str]:
        """What to print."""
        counts = {s: sum(f.severity == s for f in self.findings) for s in SEVERITIES}
        total = ", ".join(f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items())
        return [
            *map(str, self.findings),
            *(f"checked: {item}" for item in self.done),
            *(f"not checked: {item}" for item in self.skipped),
            total,
        ]


def examine(
    root: Path | str | EpisodeStore,
    *,
    replay: bool = True,
    replay_episodes: int = 6,
    video_episodes: int = 24,
    progress: Progress | None = None,
) -> Diagnosis:
    """Examine a LeRobot v3.0 folder.

    replay: also play recorded actions again, in `replay_episodes` episodes per environment. video_episodes: of how many
    episodes frames are decoded. progress: called with (what, done, total). Raises WamError if there is no dataset.
    """
    store = root if isinstance(root, EpisodeStore) else EpisodeStore(root)
    findings: list[Finding] = []
    done, skipped = [f"columns of {len(store)} episodes"], []
    poses, state_names = camera_poses(store), None
    if replay:
        groups, reason = _environments(store)
        if reason:
            skipped.append(f"replay: {reason}")
        for number, (name, episodes) in enumerate(groups.items()):
            if progress is not None:
                progress(f"replay in {name}", number, len(groups))
            try:
                environment = replaying.open_environment(store, name)
            except WamError as error:
                skipped.append(f"replay in {name}: {error}")
                continue
            try:
                findings += _replayed(store, environment, _spread(episodes, replay_episodes), done, skipped)
                poses = _poses(store, environment) | poses
                state_names = environment.state_names
            finally:
                environment.close()
    if store.cameras:
        done.append(f"frames of {listed(store.cameras)} in {min(video_episodes, len(store))} episodes")
    static = check_store(
        store, video_episodes=video_episodes, cameras=poses, state_names=state_names, progress=progress
    )
    findings = _folded(findings)
    findings += [f for f in static if not _told(f, findings)]
    order = sorted(findings, key=lambda f: SEVERITIES.index(f.severity))
    return Diagnosis(findings=tuple(order), done=tuple(done), skipped=tuple(skipped))


def _environments(store: EpisodeStore) -> tuple[dict[str, list[int]], str]:
    """{environment: places of its episodes}, or why there is nothing to replay."""
    groups: dict[str, list[int]] = {}
    for place in range(len(store)):
        if name := replaying.environment_of(store, place):
            groups.setdefault(name, []).append(place)
    if not groups:
        return {}, "the dataset names no environment"
    missing = [key for key in ("sim.state", "action") if key not in store.info.features]
    return ({}, f"no column {missing[0]!r} was recorded") if missing else (groups, "")


def _replayed(
    store: EpisodeStore, environment: Environment, episodes: list[int], done: list[str], skipped: list[str]
) -> list[Finding]:
    found = replaying.check_space(store.info.action_space, environment)
    try:
        steps = replaying.choose_steps(store, episodes)
        if steps and steps[0].actions.shape[1] != environment.action_space.dim:
            skipped.append(f"replay in {environment.name}: its actions have {environment.action_space.dim} dimensions")
            return found
        found += replaying.check_actions(environment, [s for s in steps if np.isfinite(s.actions).all()])
        found += replaying.check_images(environment, store, steps)
    except WamError as error:
        skipped.append(f"replay in {environment.name}: {error}")
        return found
    done.append(f"replay of {len(steps)} steps of {len(episodes)} episodes in {environment.name}")
    unknown = [c for c in store.cameras if c not in environment.cameras]
    if unknown:
        skipped.append(f"pictures of {listed(unknown)}: {environment.name} has no such camera")
    return found


def _poses(store: EpisodeStore, environment: Environment) -> dict[str, CameraPose]:
    """Where the environment's cameras stand."""
    environment.reset(0)
    seen = environment.observe()
    if seen.intrinsics is None or seen.extrinsics is None:
        return {}
    return {
        camera: CameraPose(
            intrinsics=seen.intrinsics[camera], extrinsics=seen.extrinsics[camera], size=seen.images[camera].shape[:2]
        )
        for camera in store.cameras
        if camera in seen.extrinsics and camera in seen.images
    }


def _folded(findings: list[Finding]) -> list[Finding]:
    """One finding for a fault that several environments of the dataset share."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.severity, found.check, found.feature), []).append(found)
    folded = []
    for first, *others in groups.values():
        episodes = sorted({e for f in (first, *others) for e in f.episodes})
        also = f" (likewise in {len(others)} more of the dataset's environments)" if others else ""
        folded.append(dataclasses.replace(first, episodes=tuple(episodes), sentence=first.sentence + also))
    return folded


def _told(static: Finding, replayed: list[Finding]) -> bool:
    """The replay explains it exactly: the same check of the same feature, or for actions any fault of sign or time."""
    derived = ("gripper", "action_lag", "rate", "range") if static.feature == "action" else (static.check,)
    same = [
        f for f in replayed if f.severity == "error" and f.feature == static.feature and f.check in (*derived, "replay")
    ]
    return bool(same) and static.check in derived


def _spread(episodes: list[int], count: int) -> list[int]:
    return [episodes[i] for i in np.unique(np.linspace(0, len(episodes) - 1, min(count, len(episodes))).astype(int))]
