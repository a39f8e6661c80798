"""A tiny dataset in which the picture moves as the action says, and a config that trains on it in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wam.contracts import ActionSpace
from wam.data.labels import OCCUPANCY, Labels, about_voxels, pack_colours, pack_voxels
from wam.data.store import EpisodeStore
from wam.data.writer import EpisodeWriter
from wam.geometry.grid import VoxelConfig
from wam.model.config import ModelConfig, OccupancyConfig
from wam.training.config import DataConfig, DataPart, TrainConfig

SPACE = ActionSpace(
    names=("x", "y"), units=("px", "px"), low=(-1, -1), high=(1, 1), kind="delta", rate_hz=10.0, gripper=None
)


def write_toy(
    root: Path,
    *,
    episodes: int = 6,
    length: int = 20,
    action_free: bool = False,
    tinted: bool = False,
    cameras: tuple[str, str] = ("a", "b"),
    spatial: bool = False,
    held: int = 4,
) -> Path:
    """A bright square pushed around a 32 x 32 picture by its actions, two pixels a unit. tinted: it also colours the
    background with where it is, so that an action shows in every pixel. spatial: the state has three numbers, not two.
    held: steps that a push lasts, before another that nothing foretells."""
    rng = np.random.default_rng(0)
    with EpisodeWriter(root, fps=10, action_space=None if action_free else SPACE) as writer:
        for number in range(episodes):
            place, frames, states, actions = rng.uniform(3, 13, 2), [], [], []
            for step in range(length):
                if step % held == 0:
                    push = rng.uniform(-1, 1, 2)
                picture = np.zeros((16, 16, 3), np.uint8)
                if tinted:
                    picture[:] = (*(place * 15).astype(np.uint8), 0)
                row, column = place.round().astype(int).clip(1, 14)
                picture[row - 1 : row + 2, column - 1 : column + 2] = 255
                frames.append(picture.repeat(2, axis=0).repeat(2, axis=1))
                states.append(np.append(place, place.sum()) if spatial else place.copy())
                actions.append(push.copy())
                place = (place + push).clip(1, 14)
            columns = {} if action_free else {"action": np.array(actions, np.float32)}
            writer.add_episode(
                images={cameras[0]: np.stack(frames), cameras[1]: np.stack(frames)[:, ::-1].copy()},
                columns={"observation.state": np.array(states, np.float32), **columns},
                task="push the square",
                extra={"play": number % 2 == 0, "success": True, "seed": number, "environment": "toy"},
            )
    return root


VOXELS: dict[str, Any] = {"shape": [8, 8, 4], "origin": [-0.4, -0.4, 0.0], "side": 0.1}
ABOVE = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1]])
INTRINSICS = np.array([[150.0, 0, 15.5], [0, 150, 15.5], [0, 0, 1]])


def write_voxels(root: Path, *, colour: bool = False) -> Path:
    """Give toy episodes two cameras that look down from the same place, and labels: the square is a block. colour: it is as
    red as its column says."""
    info = json.loads((root / "meta" / "info.json").read_text())
    pose = {"intrinsics": INTRINSICS.tolist(), "extrinsics": ABOVE.tolist()}
    info.setdefault("wam", {})["cameras"] = {"a": pose, "b": pose}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    store = EpisodeStore(root)
    labels = Labels(root, OCCUPANCY, about=about_voxels(VoxelConfig(**VOXELS), {"from": "test"}, colour=colour))
    for index in range(len(store)):
        episode = store.episode(index)
        places = (store.column("observation.state", episode) / 2).astype(int).clip(0, 7)
        filled = np.zeros((episode.length, 8, 8, 4), bool)
        for frame, (row, column) in enumerate(places):
            filled[frame, column, 7 - row, :2] = True
        painted = np.zeros((*filled.shape, 4), np.uint8)
        painted[filled] = (0, 90, 200, 255)
        painted[..., 0] = filled * (30 * np.arange(8, dtype=np.uint8))[:, None, None]
        labels.write(episode, {"filled": pack_voxels(filled), **(pack_colours(painted) if colour else {})})
    return root


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "data")


def toy_config(toy: Path, output: Path, **changes: object) -> TrainConfig:
    model = ModelConfig(width=32, depth=1, heads=2, head_dim=16, image_size=16)
    for stream in model.streams.values():
        stream.grid, stream.stem_width = 4, 8
    fields: dict[str, object] = {
        "output": str(output),
        "steps": 6,
        "batch_size": 4,
        "precision": "fp32",
        "threads": 1,
        "save_every": 3,
        "check_every": 0,
        "log_every": 1,
        "tracker": "none",
        "model": model,
        "data": DataConfig(parts=[DataPart(root=str(toy), name="toy")], cameras=["a", "b"], held_out=0.2),
    }
    return TrainConfig(**(fields | changes))  # type: ignore[arg-type]


def voxel_config(data: Path, output: Path, **changes: object) -> TrainConfig:
    """`toy_config` with voxels."""
    config = toy_config(data, output, **changes)
    config.model.occupancy = OccupancyConfig(loss_weight=1.0, width=16, cell_width=8)
    return config
