"""Soft prompts alone: a run that moves them and not one other number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import toy_config
from wam.contracts import WamError
from wam.model.config import ModelConfig
from wam.training.config import StartConfig, TrainConfig
from wam.training.state import last_checkpoint
from wam.training.trainer import train


def prompted(toy: Path, output: Path, **changes: object) -> TrainConfig:
    config = toy_config(toy, output, steps=3, **changes)
    config.model.soft_prompts = 3
    return config


def numbers(run: Path) -> dict[str, torch.Tensor]:
    folder = last_checkpoint(run)
    assert folder is not None
    return load_file(folder / "training" / "weights.safetensors")


def test_soft_prompts_alone_move_and_nothing_else_changes(toy: Path, tmp_path: Path) -> None:
    train(prompted(toy, tmp_path / "before"))
    before = load_file(last_checkpoint(tmp_path / "before") / "model.safetensors")  # type: ignore[operator]
    start = StartConfig(checkpoint=str(tmp_path / "before"))
    train(prompted(toy, tmp_path / "after", start=start, tune="soft_prompts"))
    after = numbers(tmp_path / "after")
    assert set(after) == set(before)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert all(name.endswith(".prompts") for name in moved)
    train(prompted(toy, tmp_path / "all", start=start))
    whole = numbers(tmp_path / "all")
    assert sum(not torch.equal(whole[name], before[name]) for name in whole) > len(moved)


def test_new_prompts_are_put_beside_a_model_that_had_none(toy: Path, tmp_path: Path) -> None:
    train(toy_config(toy, tmp_path / "before", steps=1))
    train(
        prompted(toy, tmp_path / "after", start=StartConfig(checkpoint=str(tmp_path / "before")), tune="soft_prompts")
    )
    before = load_file(last_checkpoint(tmp_path / "before") / "model.safetensors")  # type: ignore[operator]
    after = numbers(tmp_path / "after")
    assert {n for n in after if n not in before or not torch.equal(after[n], before[n])} <= {
        n for n in after if n.endswith(".prompts")
    }


def test_a_model_without_prompts_is_refused(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(WamError, match="soft prompts to train"):
        train(toy_config(toy, tmp_path, tune="soft_prompts"))
    assert ModelConfig().soft_prompts == 0
