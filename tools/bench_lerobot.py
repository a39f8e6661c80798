"""Against LeRobot's dataset class, on the same files: every value equal both ways, and windows a second of both.

    make bench-lerobot                      # makes .venv-lerobot (Python 3.12 or newer) and runs this
    .venv/bin/python tools/bench_lerobot.py --lerobot .venv-lerobot/bin/python [--root DATASET] [--json FILE]

Both read random windows from video in one process, nothing cached: three frames of each camera, state, eight actions.
Without --root a dataset of moving patterns is written, 30 episodes of 60 frames, two cameras of 128x128.
Exits with status 1 if a value differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import WamError, expected
from wam.data.benchmark import rate
from wam.data.features import DEPTH_SUFFIX, camera_name
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec
from wam.data.writer import EpisodeWriter
from wam.evaluation.summary import write_summary

CHECK = Path(__file__).with_name("lerobot_check.py")
MILLIMETRES = 1.5  # allowed of depth: half a step between its codes, and LeRobot's rounding to whole millimetres
COLOURS = 3.0  # mean difference allowed between two decoders' colours, of 255


def write_patterns(
    root: Path, *, episodes: int = 30, length: int = 60, size: int = 128, with_depth: bool = False
) -> Path:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    with EpisodeWriter(root, fps=20, embodiment="pattern") as writer:
        for episode in range(episodes):
            phase, speed = rng.uniform(0, 6, 3), rng.uniform(0.05, 0.3, 3)
            time = np.arange(length)[:, None, None, None]
            waves = np.sin(9 * x[..., None] + phase + speed * time) * np.cos(7 * y[..., None] - speed * time)
            frames = (127 + 120 * waves).astype(np.uint8)
            columns = {
                "observation.state": rng.normal(size=(length, 7)).astype(np.float32),
                "action": rng.normal(size=(length, 4)).astype(np.float32),
                "reward": rng.normal(size=length).astype(np.float32),
            }
            images = {"side": frames, "top": frames[:, ::-1]}
            task = f"pattern {episode % 3}"
            depth = {"top": (1.5 + waves[..., 0]).astype(np.float32)} if with_depth else None
            writer.add_episode(images=images, columns=columns, task=task, extra={"play": False}, depth=depth)
    return root


def call(python: Path, what: str, root: Path, out: Path, *, seconds: float = 5.0) -> None:
    command = [str(python), str(CHECK), what, str(root), str(out), "--seconds", str(seconds)]
    environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HOME": str(out.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise expected(f"LeRobot to {what} {root}", got=reason, do=f"run {' '.join(command)} to see more")


def differences(store: EpisodeStore, values: dict[str, np.ndarray]) -> list[str]:
    """Names of the columns and cameras whose values are not those of `values`, frame after frame."""
    wrong = []
    for name in store.info.numeric:
        own = np.concatenate([store.column(name, episode) for episode in range(len(store))])
        if name in values and not np.array_equal(own.reshape(len(own), -1), values[name].reshape(len(own), -1)):
            wrong.append(name)
    for key in store.info.visual_keys:
        own = np.concatenate([store.frames(key, episode) for episode in range(len(store))])
        other = values[key]
        other = np.moveaxis(other, 1, -1) if other.shape[1] == 3 else other
        if np.abs(own.astype(int) - other).mean((1, 2, 3)).max() > COLOURS:
            wrong.append(key)
    for key in (key for key, feature in store.info.features.items() if feature.depth):
        camera = camera_name(key).removesuffix(DEPTH_SUFFIX)
        own = np.concatenate([store.depth(camera, episode) for episode in range(len(store))])
        if np.abs(1000 * own - values[key].reshape(own.shape)).max() > MILLIMETRES:
            wrong.append(key)
    if "task" in values:
        own_tasks = [episode.task for episode in store.episodes for _ in range(episode.length)]
        wrong += ["task"] if own_tasks != values["task"].tolist() else []
    return wrong


def own_rate(root: Path, *, seconds: float) -> float:
    dataset = WindowDataset(EpisodeStore(root), WindowSpec(image_size=None), cache="none")
    rng = np.random.default_rng(0)

    def window() -> int:
        dataset.window(int(rng.integers(len(dataset))))
        return 1

    window()
    return rate(window, seconds=seconds)


def compare(python: Path, root: Path | None, *, seconds: float, folder: Path) -> dict[str, Any]:
    root = root or write_patterns(folder / "patterns")
    deep = write_patterns(folder / "deep", episodes=3, length=20, with_depth=True)
    ours = []
    for number, own in enumerate((root, deep)):
        call(python, "read", own, folder / f"read-{number}.npz")
        ours += differences(EpisodeStore(own), dict(np.load(folder / f"read-{number}.npz", allow_pickle=False)))
    call(python, "write", folder / "written", folder / "written.npz")
    theirs = differences(EpisodeStore(folder / "written"), dict(np.load(folder / "written.npz", allow_pickle=False)))
    call(python, "rate", root, folder / "rate.json", seconds=seconds)
    other = json.loads((folder / "rate.json").read_text())
    rate = own_rate(root, seconds=seconds)
    return {
        "lerobot_speedup": rate / other["windows_per_second"],
        "windows_per_second": rate,
        "lerobot_windows_per_second": other["windows_per_second"],
        "lerobot_version": other["version"],
        "lerobot_backend": other["backend"],
        "ours_read_by_lerobot_differs_in": ours,
        "lerobots_read_by_us_differs_in": theirs,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot", type=Path, default=Path(".venv-lerobot/bin/python"), help="a Python with lerobot")
    parser.add_argument("--root", type=Path, help="a dataset to use in place of patterns")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root and arguments.root.resolve()
        try:
            found = compare(arguments.lerobot.absolute(), root, seconds=arguments.seconds, folder=Path(folder))
        except (WamError, FileNotFoundError) as error:
            sys.stderr.write(f"{error}\n")
            return 2
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if arguments.json:
        figures = {name: value for name, value in found.items() if isinstance(value, float)}
        rest = {name: value for name, value in found.items() if name not in figures}
        write_summary(arguments.json, figures, n={"seconds_each": arguments.seconds}, seeds=[0], extra=rest)
    return 1 if found["ours_read_by_lerobot_differs_in"] or found["lerobots_read_by_us_differs_in"] else 0


if __name__ == "__main__":
    sys.exit(main())
