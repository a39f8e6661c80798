"""A tiny teacher of the toy square, and a simulator of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.training.conftest import SPACE, toy_config, write_toy
from wam.contracts import Observation
from wam.distillation.config import DistillConfig, ImaginedConfig, OnPolicyConfig, TeacherConfig
from wam.model.student import StudentConfig
from wam.tokenizers.text import TextConfig
from wam.training.trainer import train

ALL = ("demonstrations", "teacher_actions", "imagined", "features", "flow", "on_policy")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(scope="session")
def teacher(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a teacher, a few steps of training old."""
    output = tmp_path_factory.mktemp("teacher")
    config = toy_config(toy, output, steps=8, batch_size=8, save_every=100)
    config.model.depth = 2
    config.optimizer.learning_rate, config.optimizer.warmup = 3e-3, 1
    train(config)
    return output


def distill_config(toy: Path, teacher: Path | None, output: Path, *losses: str, **changes: object) -> DistillConfig:
    """Every loss named has weight 1."""
    run = toy_config(toy, output)
    run.model = type(run.model)()
    if teacher is None:
        run.model = toy_config(toy, output).model
    fields: dict[str, object] = {
        "train": run,
        "teacher": TeacherConfig(run=str(teacher or ""), steps=3 if "flow" in losses else 1, draws=2, batch_size=16),
        "student": StudentConfig(
            size=0.5,
            width=32,
            channels=8,
            chunk=8 if "flow" in losses else 10,
            head="flow" if "flow" in losses else "l1",
            text=TextConfig(width=16),
        ),
        "losses": dict.fromkeys(losses, 1.0),
        "imagined": ImaginedConfig(windows=12, share=0.5),
        "on_policy": OnPolicyConfig(rounds=2, episodes=2, execute=4, max_steps=8, share=(0.5, 1.0)),
    }
    return DistillConfig(**(fields | changes))  # type: ignore[arg-type]


class Square:
    """The toy dataset's world: a square that actions push."""

    instruction, max_steps, action_space = "push the square", 8, SPACE
    made: list[Square] = []  # noqa: RUF012

    def __init__(self, name: str, *, cameras: tuple[str, ...], image_size: int, max_steps: int) -> None:
        assert name == "toy"
        self.cameras, self.size, self.limit, self.starts = cameras, image_size, max_steps, []
        Square.made.append(self)

    def reset(self, seed: int) -> Observation:
        self.starts.append(seed)
        self.place, self.steps = np.random.default_rng(seed).uniform(3, 13, 2), 0
        return self.observe()

    def observe(self) -> Observation:
        picture = np.zeros((self.size, self.size, 3), np.uint8)
        row, column = self.place.round().astype(int).clip(1, self.size - 2)
        picture[row - 1 : row + 2, column - 1 : column + 2] = 255
        images = {self.cameras[0]: picture, self.cameras[1]: picture[::-1].copy()}
        return Observation(images=images, state=self.place.astype(np.float32), instruction=self.instruction)

    def step(self, action: np.ndarray, *, render: bool = True) -> SimpleNamespace:
        self.place, self.steps = (self.place + action).clip(1, self.size - 2), self.steps + 1
        seen = self.observe() if render else None
        return SimpleNamespace(observation=seen, success=bool(self.place[0] > 13), reward=0.0, done=False)

    def close(self) -> None: ...


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> list[Square]:
    """The environments that are made, one for each round and task."""
    monkeypatch.setattr("wam.distillation.on_policy.make_environment", Square)
    monkeypatch.setattr(Square, "made", [])
    return Square.made
