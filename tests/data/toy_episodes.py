"""A small dataset whose every frame carries its own number, so that a wrong frame is seen at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import ActionSpace
from wam.data.writer import EpisodeWriter

SPACE = ActionSpace(
    names=("x", "y"), units=("m", "m"), low=(-1.0, -1.0), high=(1.0, 1.0), kind="delta", rate_hz=10, gripper=None
)


def numbered_frames(count: int, *, start: int = 0, size: int = 64) -> np.ndarray:
    """(T, size, size, 3) uint8: frame i shows the bits of start + i as an 4x4 board of black and white, which survives
    lossy coding."""
    bits = (np.arange(start, start + count)[:, None] >> np.arange(16)) & 1
    board = bits.reshape(count, 4, 4).astype(np.uint8) * 200 + 25
    frames = np.repeat(np.repeat(board, size // 4, 1), size // 4, 2)
    return np.repeat(frames[..., None], 3, -1)


def frame_numbers(frames: np.ndarray) -> list[int]:
    """Reads back what `numbered_frames` wrote."""
    size = frames.shape[1] // 4
    centres = frames[:, size // 2 :: size, size // 2 :: size].mean(-1) > 125
    return [int((board.reshape(-1) << np.arange(16)).sum()) for board in centres[:, :4, :4]]


def episode_arrays(seed: int, length: int) -> dict[str, Any]:
    """What `add_episode` takes; frame numbers start at 1000 * seed on the side camera, 500 later on the top one."""
    rng = np.random.default_rng(seed)
    return {
        "images": {
            "side": numbered_frames(length, start=1000 * seed),
            "top": numbered_frames(length, start=1000 * seed + 500),
        },
        "columns": {
            "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
            "action": rng.uniform(-1, 1, (length, 2)).astype(np.float32),
            "sim.state": rng.normal(size=(length, 5)),
            "reward": rng.normal(size=length).astype(np.float32),
        },
    }


LENGTHS = (12, 30, 21, 9, 17, 25)


def write_toy(root: Path, *, lengths: tuple[int, ...] = LENGTHS) -> Path:
    with EpisodeWriter(root, fps=10, action_space=SPACE, embodiment="toy", environment="toy/board") as writer:
        for seed, length in enumerate(lengths):
            play = seed % 3 == 2
            writer.add_episode(
                **episode_arrays(seed, length),
                task="play" if play else f"task {seed % 2}",
                extra={"play": play, "success": not play, "seed": seed, "environment": f"toy/{seed % 2}"},
            )
    return root
