"""A small clean dataset of a hand over a table, seen by a known camera, into which faults are planted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import ActionSpace
from wam.data.features import FRAME_FEATURES, Feature
from wam.data.store import EpisodeStore
from wam.data.writer import EpisodeWriter

FPS, LENGTH, EPISODES, SIZE = 10, 60, 6, 64
STATE_NAMES = ("hand_x", "hand_y", "hand_z", "gripper_opening", "yaw")
SPACE = ActionSpace(
    names=("x", "y", "z", "gripper"), units=("m",) * 3 + ("effort",), low=(-1.0,) * 4, high=(1.0,) * 4, kind="delta",
    rate_hz=FPS, gripper="gripper",
)  # fmt: skip
INTRINSICS = np.array([[80.0, 0, 31.5], [0, 80, 31.5], [0, 0, 1]])
Episode = dict[str, Any]  # images and columns, as `EpisodeWriter.add_episode` takes them
Plant = Callable[[int, Episode], None]


def camera_pose() -> np.ndarray:
    """(4, 4) camera-to-world: in front of the table, looking down on it by 40 degrees."""
    place, target = np.array([1.2, 0.3, 1.0]), np.array([0.0, 0.0, 0.1])
    forward = (target - place) / np.linalg.norm(target - place)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, place], axis=1)
    return pose


def clean_episode(index: int) -> Episode:
    """Smooth random commands, a hand that follows a little late, a gripper that closes and opens, and their picture."""
    rng = np.random.default_rng(index)
    command = rng.normal(size=(LENGTH + 20, 3))
    command = np.stack([np.convolve(c, np.hanning(9) / 4.5, "valid")[:LENGTH] for c in command.T], axis=1)
    place = np.zeros((LENGTH, 3))
    place[0] = rng.uniform(-0.05, 0.05, 3) + np.array([0, 0, 0.15])
    for t in range(LENGTH - 1):
        pull = -0.08 * (place[0] - place[t]) / 0.1
        command[t] = np.clip(command[t] - pull, -1, 1)
        place[t + 1] = place[t] + 0.03 * command[t]
    close = np.arange(LENGTH) // 15 % 2 == 1
    opening = np.ones(LENGTH)
    for t in range(LENGTH - 1):
        opening[t + 1] = np.clip(opening[t] + (-0.2 if close[t] else 0.2), 0, 1)
    yaw = 0.5 * np.sin(np.arange(LENGTH) / 9 + index)
    action = np.concatenate([command, np.where(close, 1.0, -1.0)[:, None]], axis=1)
    state = np.concatenate([place, opening[:, None], yaw[:, None]], axis=1)
    columns = {"observation.state": state.astype(np.float32), "action": action.astype(np.float32)}
    return {"images": {"front": picture(place)}, "columns": columns}


def picture(place: np.ndarray) -> np.ndarray:
    """place (T, 3) -> (T, SIZE, SIZE, 3) uint8: a dark disc over a background without symmetry."""
    pose = camera_pose()
    rays = (place - pose[:3, 3]) @ pose[:3, :3] @ INTRINSICS.T
    u, v = (rays[:, :2] / rays[:, 2:]).T
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    background = 120 + 60 * np.sin(x / 23 + 0.4) * np.cos(y / 17) + 50 * (x > 44) * (y < 20) - 40 * (y > 50)
    near = (x - u[:, None, None]) ** 2 + (y - v[:, None, None]) ** 2
    grey = background - (background - 15) * np.exp(-near / 18)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def write(root: Path, plant: Plant | None = None, *, space: ActionSpace | None = SPACE, **extra: Any) -> EpisodeStore:
    """The dataset with a fault: `plant(index, episode)` changes each episode in place."""
    numbers = {
        "observation.state": Feature(dtype="float32", shape=(5,), names=list(STATE_NAMES)),
        "action": Feature(dtype="float32", shape=(4,), names=list(SPACE.names)),
    }
    video = {"observation.images.front": Feature(dtype="video", shape=(SIZE, SIZE, 3), names=["h", "w", "c"])}
    with EpisodeWriter(
        root, fps=FPS, features=numbers | video | FRAME_FEATURES, action_space=space, extra=extra
    ) as writer:
        for index in range(EPISODES):
            episode = clean_episode(index)
            if plant is not None:
                plant(index, episode)
            writer.add_episode(**episode, task="move")
    return EpisodeStore(root)
