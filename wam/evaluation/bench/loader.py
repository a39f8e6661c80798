"""What training waits for its data: real training steps on a small dataset that is made for the purpose."""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import ActionSpace, expected
from wam.data.benchmark import rate
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset
from wam.data.writer import EpisodeWriter
from wam.evaluation.bench.timing import BenchResult, Target
from wam.model.config import ModelConfig
from wam.training.config import DataConfig, DataPart, TrainConfig
from wam.training.data import window_spec
from wam.training.trainer import train

CAMERAS = ("side", "top")
SPACE = ActionSpace(
    names=("x", "y", "z", "gripper"), units=("m",) * 4, low=(-1.0,) * 4, high=(1.0,) * 4, kind="delta", rate_hz=10
)


def write_episodes(root: Path, *, episodes: int, length: int, size: int = 64, seed: int = 0) -> Path:
    """A dataset of two cameras, a state and four actions: a bright square drifts where the actions push it."""
    rng = np.random.default_rng(seed)
    with EpisodeWriter(root, fps=10, action_space=SPACE, embodiment="square") as writer:
        for number in range(episodes):
            action = rng.uniform(-1, 1, (length, 4)).astype(np.float32)
            place = np.clip(0.5 + 0.05 * action.cumsum(0), 0, 1).astype(np.float32)
            corners = (place[:, :2] * (size - 12)).astype(int)
            frames = np.full((length, size, size, 3), 60, np.uint8)
            for frame, (x, y) in zip(frames, corners, strict=True):
                frame[y : y + 12, x : x + 12] = (220, 80, 40)
            play = number % 3 == 2
            writer.add_episode(
                images=dict.fromkeys(CAMERAS, frames),
                columns={"observation.state": place, "action": action},
                task="play" if play else "push the square",
                extra={"play": play, "success": not play, "seed": number},
            )
    return root


def bench_loader(
    *,
    config: TrainConfig | None = None,
    steps: int = 25,
    episodes: int = 24,
    length: int = 60,
    repeats: int = 3,
    seconds: float = 1.0,
    lerobot: str | Path | None = None,
) -> BenchResult:
    """data_wait_share: of the time of `steps` training steps, the very first one included, what the trainer waited for
    batches; the median of `repeats` runs. windows_per_second: reading alone, from memory and from video, for `seconds`
    each. lerobot: what `make bench-lerobot` wrote, whose lerobot_speedup joins the figures."""
    against = None if lerobot is None else _measured(Path(lerobot))
    config = config or TrainConfig(model=ModelConfig())
    with tempfile.TemporaryDirectory() as scratch:
        root = write_episodes(Path(scratch) / "data", episodes=episodes, length=length, size=config.model.image_size)
        shares = []
        for repeat in range(repeats):
            run = replace(
                config,
                output=str(Path(scratch) / f"run-{repeat}"),
                data=DataConfig(parts=[DataPart(root=str(root))], cameras=list(CAMERAS), workers=config.data.workers),
                seed=repeat,
                steps=steps,
                log_every=steps,
                check_every=0,
                save_every=steps + 1,
                tracker="none",
            )
            train(run, resume=False)
            logged = [json.loads(line) for line in (Path(run.output) / "metrics.jsonl").read_text().splitlines()]
            shares.append(float(logged[-1]["data_wait_share"]))
        store = EpisodeStore(root)
        memory, video = (
            _windows_per_second(WindowDataset(store, window_spec(run), cache=cache), config.batch_size, seconds)
            for cache in ("memory", "none")
        )
    return BenchResult(
        name="loader",
        figures={
            "data_wait_share": statistics.median(shares),
            **({"lerobot_speedup": against["lerobot_speedup"]} if against else {}),
        },
        detail={
            "steps": steps,
            "batch_size": config.batch_size,
            "workers": config.data.workers,
            "shares": shares,
            "windows": episodes * length,
            "windows_per_second_memory": memory,
            "windows_per_second_video": video,
            **({"lerobot": against} if against else {}),
        },
        n=repeats,
        seeds=tuple(range(repeats)),
        targets={
            "data_wait_share": Target(value=0.03, at_least=False),
            **({"lerobot_speedup": Target(value=3.0)} if against else {}),
        },
    )


def _windows_per_second(windows: WindowDataset, batch_size: int, seconds: float) -> float:
    rng = np.random.default_rng(0)
    windows.batch(range(batch_size))
    return rate(lambda: windows.batch(rng.integers(0, len(windows), batch_size)).size, seconds=seconds)


def _measured(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        return {**found, "lerobot_speedup": float(found["figures"]["lerobot_speedup"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise expected(
            f"a comparison with LeRobot at {path}", got=error, do="run `make bench-lerobot` first"
        ) from error
