"""LeRobot's side of `make bench-lerobot`: run by the Python that has the package lerobot, never importing wam.

.venv-lerobot/bin/python tools/lerobot_check.py read ROOT OUT.npz    # every value as LeRobot's dataset class gives it
.venv-lerobot/bin/python tools/lerobot_check.py rate ROOT OUT.json   # its windows a second, one process
.venv-lerobot/bin/python tools/lerobot_check.py write ROOT OUT.npz   # a dataset by LeRobot's writer, and its values
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np


def open_dataset(root: Path, **options: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/dataset", root=root, return_uint8=True, **options)


def save(out: Path, columns: dict[str, list[Any]]) -> None:
    arrays: dict[str, Any] = {name: np.stack(values) for name, values in columns.items()}
    np.savez(out, **arrays)


def read(root: Path, out: Path) -> None:
    """All columns, and every frame of every camera, in the order of the dataset."""
    dataset = open_dataset(root)
    found: dict[str, list[Any]] = {}
    for index in range(len(dataset)):
        for name, value in dataset[index].items():
            if name in dataset.features:
                found.setdefault(name, []).append(np.asarray(value))
            elif name == "task":
                found.setdefault("task", []).append(value)
    save(out, found)


def rate(root: Path, out: Path, *, seconds: float, rounds: int = 5) -> None:
    """Random windows as `wam` reads them by default: three frames of each camera and a chunk of eight actions."""
    plain = open_dataset(root)
    fps = plain.fps
    deltas = {key: [0.0, 4 / fps, 8 / fps] for key in plain.meta.video_keys}
    deltas["action"] = [step / fps for step in range(8)]
    dataset = open_dataset(root, delta_timestamps=deltas)
    rng, best = np.random.default_rng(0), 0.0
    dataset[0]
    for _ in range(rounds):
        begun, done = time.perf_counter(), 0
        while (spent := time.perf_counter() - begun) < seconds / rounds:
            dataset[int(rng.integers(len(dataset)))]
            done += 1
        best = max(best, done / spent)
    import lerobot
    from lerobot.datasets.video_utils import get_safe_default_video_backend

    backend = get_safe_default_video_backend()
    out.write_text(json.dumps({"windows_per_second": best, "version": lerobot.__version__, "backend": backend}))


def write(root: Path, out: Path) -> None:
    """Three short episodes of two tasks, through LeRobot's own writer with its default encoding."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["dx", "dy"]},
        "observation.images.front": {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
        "observation.images.front_depth": {
            "dtype": "video",
            "shape": (64, 96, 1),
            "names": ["height", "width", "channels"],
            "info": {"is_depth_map": True},
        },
    }
    dataset = LeRobotDataset.create("local/written", fps=10, features=features, root=root, robot_type="toy")
    rng = np.random.default_rng(0)
    kept: dict[str, list[Any]] = {name: [] for name in features}
    for episode in range(3):
        for step in range(12 + episode):
            image = np.full((64, 96, 3), 20 + 15 * step, np.uint8)
            image[:, : 10 + 5 * episode] = 250
            slope = np.linspace(0.3, 2.0 + 0.1 * step, 64, dtype=np.float32)
            frame: dict[str, Any] = {
                "observation.state": rng.normal(size=3).astype(np.float32),
                "action": rng.normal(size=2).astype(np.float32),
                "observation.images.front": image,
                "observation.images.front_depth": np.repeat(slope[:, None, None], 96, axis=1),
            }
            for name, value in frame.items():
                kept[name].append(1000 * value if name.endswith("_depth") else value)
            dataset.add_frame(frame | {"task": f"task {episode % 2}"})
        dataset.save_episode()
    dataset.finalize()
    save(out, kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("read", "rate", "write"))
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    if arguments.what == "rate":
        rate(arguments.root, arguments.out, seconds=arguments.seconds)
    else:
        {"read": read, "write": write}[arguments.what](arguments.root, arguments.out)


if __name__ == "__main__":
    main()
