"""All static checks over a store: each column read once, each looked-at frame decoded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from wam.contracts import ActionSpace, WamError
from wam.data.checks import angles, columns, frames, gripper, lag, orientation, rate
from wam.data.checks.columns import Column
from wam.data.checks.depth import check_depth
from wam.data.checks.finding import SEVERITIES, Finding, finding, in_episodes
from wam.data.features import ACTION, STATE, Feature
from wam.data.poses import CameraPose, camera_poses
from wam.data.store import EpisodeStore

_POSITION_COLUMNS = ("cartesian_position", "ee_pos", "eef_pos")


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The numbers of a dataset as the checks want them: {episode: (T, D)} with one name per dimension."""

    column: Column
    names: tuple[str, ...]


def check_store(
    store: EpisodeStore,
    *,
    episodes: Sequence[int] | None = None,
    video_episodes: int = 24,
    cameras: Mapping[str, CameraPose] | None = None,
    state_names: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Finding, ...]:
    """Every static check, the gravest findings first.

    episodes: places in `store.episodes` (default all). video_episodes: of how many of them, evenly spread, frames are
    decoded. cameras: known poses (default: those in info.json under wam.cameras). state_names:
    what the dimensions of `observation.state` are, if the dataset does not say. progress: gets (what, done, total).
    """
    chosen = list(range(len(store))) if episodes is None else list(episodes)
    found: list[Finding] = _check_notes(store, chosen)
    space = store.info.action_space
    fps = float(store.info.fps)
    tables: dict[str, Column] = {}
    for name in (*store.info.numeric, "timestamp"):
        tables[name], problems = _read_column(store, name, chosen)
        found += problems
    state, action = _signals(store, tables, STATE), _signals(store, tables, ACTION)
    if state is not None and state_names is not None and len(state_names) == len(state.names):
        unnamed = state.names == columns.dimension_names(len(state.names))
        state = replace(state, names=tuple(state_names)) if unnamed else state
    for name, feature in store.info.numeric.items():
        found += _check_column(name, tables[name], feature)
    found += rate.check_timestamps(_finite(tables["timestamp"]), fps=fps)
    held: list[Finding] = []
    if action is not None:
        held = rate.check_held_actions(_without_play(store, _finite(action.column)), gripper=_gripper(action, space))
        found += held
        if space is not None and space.dim == len(action.names):
            found += columns.check_range(_finite(action.column), space) + rate.check_declared_rate(space, fps=fps)
    if action is not None and state is not None:
        # held actions seem shifted by half their hold, shifted ones may seem to move the gripper the wrong way
        timing = [] if held else _check_timing(state, action, space, fps)
        found += timing
        if not any(f.check == "action_lag" for f in timing):
            found += _check_grippers(state, action, space, fps)
    known = cameras if cameras is not None else camera_poses(store)
    sample = sorted({chosen[i] for i in np.linspace(0, len(chosen) - 1, min(video_episodes, len(chosen))).astype(int)})
    for camera in store.cameras:
        found += _check_camera(
            store, camera, sample, state=state, action=action, pose=known.get(camera), progress=progress
        )
    for camera in store.info.depth_keys:
        found += check_depth(store, camera, sample)
    return tuple(sorted(found, key=lambda f: SEVERITIES.index(f.severity)))


def _read_column(store: EpisodeStore, name: str, chosen: Sequence[int]) -> tuple[Column, list[Finding]]:
    column, broken = {}, {}
    for episode in chosen:
        try:
            value = store.column(name, episode)
            column[episode] = value.reshape(len(value), -1).astype(np.float64)
        except WamError as error:
            broken[episode] = error
    if not broken:
        return column, []
    first = next(iter(broken.values()))
    sentence = f"{name} cannot be read in {in_episodes(list(broken))}: {first}"
    return column, [finding("error", "readable", name, sentence, evidence=len(broken), episodes=broken)]


def _signals(store: EpisodeStore, tables: Mapping[str, Column], key: str) -> Signals | None:
    """The column `key`, or all columns `key.*` side by side, as some datasets have them."""
    parts = [key] if key in store.info.numeric else [k for k in store.info.numeric if k.startswith(f"{key}.")]
    if not parts:
        return None
    episodes = [e for e in tables[parts[0]] if all(e in tables[p] for p in parts)]
    names: list[str] = []
    for part in parts:
        own = feature_names(store.info.features[part])
        if any(word in part for word in _POSITION_COLUMNS) and own == columns.dimension_names(len(own)):
            own = (*"xyz", *own[3:])
        names += own if len(parts) == 1 else [f"{part.removeprefix(f'{key}.')}.{n}" for n in own]
    column = {e: np.concatenate([tables[p][e] for p in parts], axis=1) for e in episodes}
    return Signals(column=column, names=tuple(names)) if column else None


def feature_names(feature: Feature) -> tuple[str, ...]:
    """One name per dimension, from a flat list or {"group": [...]}, else numbers."""
    names = feature.names
    if isinstance(names, Mapping) and len(names) == 1:
        names = next(iter(names.values()))
    size = int(np.prod(feature.shape)) if feature.shape else 1
    return columns.dimension_names(size, names if isinstance(names, (list, tuple)) else None)


def _check_column(name: str, column: Column, feature: Feature) -> list[Finding]:
    if not column:
        return []
    found = columns.check_finite(name, column)
    names, sound = feature_names(feature), _finite(column)
    if not sound or not (name == ACTION or name.startswith((f"{ACTION}.", "observation."))):
        return found
    found += columns.check_constant(name, sound, names) or columns.check_stuck(name, sound)
    if feature.dtype.startswith("float"):
        found += columns.check_spikes(name, sound, names) + angles.check_wraps(name, sound, names)
    return found


def _check_grippers(state: Signals, action: Signals, space: ActionSpace | None, fps: float) -> list[Finding]:
    states, actions = _finite(state.column), _finite(action.column)
    found = []
    dim = _gripper(action, space)
    if dim is not None:
        in_state = gripper.gripper_dimension(state.names)
        found += gripper.check_gripper(
            states,
            actions,
            action_dim=dim,
            state_dim=in_state,
            state_name=state.names[in_state] if in_state is not None else "",
            space=space if space is not None and space.dim == len(action.names) else None,
            fps=fps,
        )
    return found


def _check_timing(state: Signals, action: Signals, space: ActionSpace | None, fps: float) -> list[Finding]:
    states, actions = _finite(state.column), _finite(action.column)
    found: list[Finding] = []
    relation = lag.relate(states, actions, fps=fps, kind=space.kind if space is not None else None)
    if relation is not None:
        found += lag.check_action_lag(relation, fps=fps) or lag.check_episode_lags(relation, states, actions)
        found += rate.check_stretch(relation, states, actions) or rate.check_step_sizes(relation, states, actions)
    return found


def _check_camera(
    store: EpisodeStore,
    camera: str,
    sample: Sequence[int],
    *,
    state: Signals | None,
    action: Signals | None,
    pose: CameraPose | None,
    progress: Callable[[str, int, int], None] | None,
) -> list[Finding]:
    views: dict[int, np.ndarray] = {}
    broken: dict[int, WamError] = {}
    fps = float(store.info.fps)
    for done, episode in enumerate(sample):
        if progress is not None:
            progress(f"frames of {camera}", done, len(sample))
        try:
            views[episode] = frames.read_thumbnails(
                partial(store.frames, camera, episode), store.episodes[episode].length
            )
        except WamError as error:
            broken[episode] = error
    found = []
    if broken:
        sentence = f"{camera} cannot be decoded in {in_episodes(list(broken))}: {next(iter(broken.values()))}"
        found.append(finding("error", "decodable", camera, sentence, evidence=len(broken), episodes=broken))
    moves = _finite(state.column) if state is not None else None
    if moves is None and action is not None:
        moves = {e: np.cumsum(v, axis=0) for e, v in _finite(action.column).items()}
    found += frames.check_blank(camera, views) + frames.check_frozen(camera, views, moves, fps=fps)
    found += frames.check_torn(camera, views) + orientation.check_against_others(camera, views)
    if state is not None:
        sound = _finite(state.column)
        energies = {e: frames.energy(v) for e, v in views.items() if len(v) > 1}
        found += lag.check_image_lag(camera, energies, sound, fps=fps)
        where = orientation.find_position(state.names)
        if where is not None:
            track = orientation.track_motion(views, {e: v[:, list(where)] for e, v in sound.items()})
            found += (
                orientation.check_projected(camera, track, pose) if pose else orientation.check_upright(camera, track)
            )
    return found


def _check_notes(store: EpisodeStore, chosen: Sequence[int]) -> list[Finding]:
    """What a conversion trimmed or left out, said again where people look for it."""
    notes: dict[str, list[int]] = {}
    for episode in chosen:
        if note := str(store.episodes[episode].extra.get("note") or ""):
            notes.setdefault(note, []).append(episode)
    return [
        finding(
            "note", "conversion", "episode", f"{in_episodes(e)}: {note} (at conversion)", evidence=len(e), episodes=e
        )
        for note, e in notes.items()
    ]


def _gripper(action: Signals, space: ActionSpace | None) -> int | None:
    return gripper.gripper_dimension(action.names, space)


def _finite(column: Column) -> dict[int, np.ndarray]:
    """Episodes without NaN: these have their own finding and would spoil every other figure."""
    return {e: v for e, v in column.items() if np.isfinite(v).all()}


def _without_play(store: EpisodeStore, column: Column) -> Column:
    return {e: v for e, v in column.items() if not store.episodes[e].play}
