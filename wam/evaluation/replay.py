"""Recorded actions played again in the simulator, from recorded states: does each lead where the recording says?

Every step starts from its own recorded state, so errors do not pile up, and a fault of the recording (a flipped sign, a
shifted row, another rate) shows as the one change of the actions that makes the simulator agree again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wam.contracts import ActionSpace, WamError
from wam.data.checks.finding import Finding, finding, in_episodes, listed
from wam.data.checks.orientation import CURES, FLIPS
from wam.data.store import EpisodeStore
from wam.simulation.environment import Environment, make_environment

AGREES, DIFFERS = 0.02, 0.1  # error of a step, in units of the usual change per step
_SHIFTS = tuple(k for k in range(-4, 5) if k)
_TRIED = 16  # steps on which every possible change of the actions is tried
_DULL = 24.0  # dB; recorded and rendered images of the same state are well above, coding losses included


@dataclass(frozen=True, kw_only=True)
class Step:
    """One recorded step: state[t], the episode's actions, t, and state[t + 1]."""

    episode: int
    before: np.ndarray
    after: np.ndarray
    actions: np.ndarray
    row: int


def environment_of(store: EpisodeStore, episode: int) -> str | None:
    """The environment's name, recorded per episode or for the whole dataset."""
    name = store.episodes[episode].extra.get("environment") or store.info.environment
    return str(name) if name else None


def open_environment(store: EpisodeStore, name: str) -> Environment:
    """The environment at the dataset's image size and rate, with those of its cameras that it knows."""
    keys = store.info.visual_keys
    height, width = store.info.features[keys[0]].shape[:2] if keys else (64, 64)
    cameras = _known_cameras(name, store.cameras)

    def build(action_repeat: int | None) -> Environment:
        # a replay may start at any step, so it has no horizon of its own
        return make_environment(
            name, cameras=cameras, image_size=(height, width), action_repeat=action_repeat, max_steps=1_000_000_000
        )

    environment = build(None)
    if abs(environment.action_space.rate_hz - store.info.fps) <= 0.02 * store.info.fps:
        return environment
    environment.close()
    finest = build(1)
    repeat = max(1, round(finest.action_space.rate_hz / store.info.fps))
    if repeat == 1:
        return finest
    finest.close()
    return build(repeat)


def _known_cameras(name: str, cameras: Sequence[str]) -> tuple[str, ...] | None:
    """All, or those that the environment has, tried one by one; None (its own) if it has none of them."""

    def known(some: tuple[str, ...]) -> bool:
        try:
            make_environment(name, cameras=some, image_size=8).close()
        except WamError:
            return False  # a camera of another simulator or of a robot; the doctor tells that it was not compared
        return True

    if cameras and known(tuple(cameras)):
        return tuple(cameras)
    return tuple(camera for camera in cameras if known((camera,))) or None


def choose_steps(store: EpisodeStore, episodes: Sequence[int], *, per_episode: int = 16) -> list[Step]:
    """Steps spread over the episodes, not so near the ends that their actions could not be shifted."""
    steps = []
    for episode in episodes:
        states = store.column("sim.state", episode).astype(np.float64)
        actions = store.column("action", episode).reshape(len(states), -1).astype(np.float64)
        reach = min(max(map(abs, _SHIFTS)), (len(states) - 2) // 2)
        if len(states) < 3:
            continue
        for row in np.unique(np.linspace(reach, len(states) - 2 - reach, per_episode).astype(int)):
            steps.append(
                Step(episode=episode, before=states[row], after=states[row + 1], actions=actions, row=int(row))
            )
    return steps


def step_errors(environment: Environment, steps: Sequence[Step], change: Callable[[Step], np.ndarray]) -> np.ndarray:
    """(N,) distance of the simulator's next state from the recorded one, each dimension in units of its usual change."""
    moved = np.stack([s.after - s.before for s in steps])
    scale = np.sqrt(np.square(moved).mean(axis=0))
    live = scale > 1e-9
    errors = []
    for step in steps:
        environment.set_state(step.before)
        environment.step(change(step), render=False)
        miss = (environment.get_state() - step.after)[live] / scale[live]
        errors.append(float(np.sqrt(np.square(miss).mean())))
    return np.array(errors)


def check_actions(environment: Environment, steps: Sequence[Step]) -> list[Finding]:
    """Errors as recorded; where they are large, which change of the actions brings them down."""
    if not steps:
        return []
    # the last row of an episode may be its end for the simulator too, hence the median
    errors = step_errors(environment, steps, _as_recorded)
    error = float(np.median(errors))
    if error < DIFFERS:
        return _odd_episodes(steps, errors)
    few = steps[:: max(1, len(steps) // _TRIED)]
    trials = {name: float(np.median(step_errors(environment, few, f))) for name, f in _changes(environment).items()}
    name = min(trials, key=lambda n: trials[n])
    guilty = sorted({s.episode for s in steps})
    if trials[name] < max(AGREES, 0.2 * error) and trials[name] < 0.5:
        what, check, cure = name
        sentence = (
            f"{what}: replayed in {environment.name} the recorded actions miss the recorded states by {error:.2f} of a "
            f"step's change in {in_episodes(guilty)}, and by {trials[name]:.3f} once that is undone; {cure}"
        )
        return [finding("error", check, "action", sentence, evidence=error, episodes=guilty)]
    sentence = (
        f"replayed in {environment.name} the recorded actions do not lead to the recorded states in {in_episodes(guilty)} "
        f"(error {error:.2f} of a step's change; neither a sign, a shift nor another rate explains it); check how "
        "actions and states were recorded"
    )
    return [finding("error", "replay", "action", sentence, evidence=error, episodes=guilty)]


def _odd_episodes(steps: Sequence[Step], errors: np.ndarray) -> list[Finding]:
    owners = np.array([s.episode for s in steps])
    each = {int(e): float(np.median(errors[owners == e])) for e in np.unique(owners)}
    guilty = [e for e, error in each.items() if error > DIFFERS]
    if not guilty:
        return []
    worst = max(each[e] for e in guilty)
    sentence = (
        f"replayed in the simulator the actions of {in_episodes(guilty)} miss the recorded states by up to {worst:.2f} of a "
        "step's change, those of the others do not; drop or record these episodes again"
    )
    return [finding("error", "replay", "action", sentence, evidence=worst, episodes=guilty)]


def _as_recorded(step: Step) -> np.ndarray:
    return step.actions[step.row]


def _changes(environment: Environment) -> Mapping[tuple[str, str, str], Callable[[Step], np.ndarray]]:
    """(what is wrong, check, what to do) -> the actions as they should have been."""
    space = environment.action_space
    changes: dict[tuple[str, str, str], Callable[[Step], np.ndarray]] = {}
    for dim, name in enumerate(space.names):
        sign = np.where(np.arange(space.dim) == dim, -1.0, 1.0)
        is_gripper = name == space.gripper
        what = "the gripper's sign is flipped" if is_gripper else f"the sign of action {name} is flipped"
        key = (what, "gripper" if is_gripper else "replay", f"negate {name}")
        changes[key] = lambda step, sign=sign: step.actions[step.row] * sign  # type: ignore[misc]
    for shift in _SHIFTS:
        where = "early" if shift < 0 else "late"
        key = (f"the actions are {abs(shift)} rows too {where}", "action_lag",
               f"shift them {abs(shift)} rows {'later' if shift < 0 else 'earlier'}")  # fmt: skip
        changes[key] = lambda step, shift=shift: step.actions[step.row + shift]  # type: ignore[misc]
    for factor in (0.5, 2.0, 0.01, 100.0):
        size = f"{1 / factor:g} times too large" if factor < 1 else f"{factor:g} times too small"
        key = (f"the actions are {size}", "range", f"multiply them by {factor:g}")
        changes[key] = lambda step, factor=factor: step.actions[step.row] * factor  # type: ignore[misc]
    changes[("the actions are negated", "replay", "negate them all")] = lambda step: -step.actions[step.row]
    return changes


def check_images(
    environment: Environment, store: EpisodeStore, steps: Sequence[Step], *, per_camera: int = 12
) -> list[Finding]:
    """Recorded frames against the simulator's picture of the recorded states: turned, shifted, of another camera."""
    found: list[Finding] = []
    shared = [c for c in store.cameras if c in environment.cameras]
    chosen = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, per_camera).astype(int))] if steps else []
    if not shared or not chosen:
        return found
    rendered: list[Mapping[str, np.ndarray]] = []
    for step in chosen:
        environment.set_state(step.before)
        rendered.append(environment.observe().images)
    for camera in shared:
        rows = [np.clip(s.row + np.arange(-3, 4), 0, len(s.actions) - 1) for s in chosen]
        try:
            frames = [store.frames(camera, s.episode, r).astype(np.float32) for s, r in zip(chosen, rows, strict=True)]
        except WamError:
            continue  # the static checks have said so
        found += _compare(camera, chosen, frames, rendered)
    return found


def _compare(
    camera: str, steps: Sequence[Step], frames: Sequence[np.ndarray], rendered: Sequence[Mapping[str, np.ndarray]]
) -> list[Finding]:
    """frames: per step (7, H, W, 3), three rows before to three after. The smallest error tells what was recorded."""
    now = np.stack([f[3] for f in frames])
    truth = {name: np.stack([r[name] for r in rendered]).astype(np.float32) for name in rendered[0]}
    plain = _error(now, truth[camera])
    episodes = sorted({s.episode for s in steps})
    turned = {name: _error(now[:, v][:, :, h], truth[camera]) for name, (v, h) in FLIPS.items()}
    name = min(turned, key=lambda n: turned[n])
    if turned[name] < 0.5 * plain:
        sentence = (
            f"{camera} is {name} against the simulator in {in_episodes(episodes)} (PSNR {_psnr(plain):.1f} dB as it is, "
            f"{_psnr(turned[name]):.1f} when turned); turn the images (flip={CURES[name]})"
        )
        return [finding("error", "orientation", camera, sentence, evidence=_psnr(plain), episodes=episodes)]
    others = {n: _error(now, t) for n, t in truth.items() if n != camera and t.shape == now.shape}
    other = min(others, key=lambda n: others[n], default=None)
    if other is not None and others[other] < 0.5 * plain:
        sentence = (
            f"{camera} shows the camera {other!r} of the simulator (PSNR {_psnr(others[other]):.1f} dB against "
            f"{_psnr(plain):.1f}); rename the cameras"
        )
        return [finding("error", "camera_name", camera, sentence, evidence=_psnr(plain), episodes=episodes)]
    shifted = {k: _error(np.stack([f[3 + k] for f in frames]), truth[camera]) for k in range(-3, 4)}
    best = min(shifted, key=lambda k: shifted[k])
    if best and shifted[best] < 0.6 * plain:
        sentence = (
            f"frames of {camera} show the state {abs(best)} rows {'before' if best > 0 else 'after'} their own (PSNR "
            f"{_psnr(shifted[best]):.1f} dB there, {_psnr(plain):.1f} at their own); shift them {abs(best)} rows "
            f"{'earlier' if best > 0 else 'later'}"
        )
        return [finding("error", "image_lag", camera, sentence, evidence=best, episodes=episodes)]
    poor = [s.episode for s, a, b in zip(steps, now, truth[camera], strict=True) if _psnr(_error(a, b)) < _DULL]
    if poor:
        worst = min(_psnr(_error(a, b)) for a, b in zip(now, truth[camera], strict=True))
        sentence = (
            f"frames of {camera} differ from the simulator's picture of the same state in episodes "
            f"{listed(sorted(set(poor)))} (PSNR down to {worst:.1f} dB); "
            "check camera, renderer and pairing of images and states"
        )
        return [finding("warning", "replay", camera, sentence, evidence=worst, episodes=sorted(set(poor)))]
    return []


def _error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(np.float32) - b).mean()) if a.shape == b.shape else float("inf")


def _psnr(error: float) -> float:
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def check_space(recorded: ActionSpace | None, environment: Environment) -> list[Finding]:
    """The dataset's action space must be the environment's."""
    own = environment.action_space
    if recorded is None:
        return []
    odd = [
        f"{key} {getattr(recorded, key)!r} instead of {getattr(own, key)!r}"
        for key in ("names", "kind", "gripper", "gripper_closed_high")
        if getattr(recorded, key) != getattr(own, key)
    ]
    if not odd:
        return []
    sentence = (
        f"the dataset's action space has {'; '.join(odd)} of {environment.name}; take the environment's, or name the "
        "environment that was recorded"
    )
    check = "gripper" if all("gripper" in o for o in odd) else "action_space"
    return [finding("error", check, "action", sentence, evidence=len(odd))]
