"""Muon steps linear weights and AdamW the rest; both are saved and go on where they stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.conftest import toy_config
from wam.contracts import WamError
from wam.training.config import OptimizerConfig
from wam.training.optimizer import make_optimizers
from wam.training.trainer import train


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv = nn.Embedding(5, 8), nn.Conv2d(1, 2, 3)
        self.inner, self.frozen = nn.Linear(8, 6), nn.Linear(2, 2).requires_grad_(False)


def test_every_trained_parameter_is_stepped_once_and_matrices_of_linear_layers_by_muon() -> None:
    module = Mixed()
    adamw, muon = make_optimizers(module, OptimizerConfig(kind="muon"))
    assert isinstance(muon, torch.optim.Muon)
    assert [p is module.inner.weight for group in muon.param_groups for p in group["params"]] == [True]
    stepped = [p for o in (adamw, muon) for group in o.param_groups for p in group["params"]]
    assert {id(p) for p in stepped} == {id(p) for p in module.parameters() if p.requires_grad}
    assert len(stepped) == len({id(p) for p in stepped})


def test_adamw_alone_steps_everything() -> None:
    (only,) = make_optimizers(Mixed(), OptimizerConfig())
    assert isinstance(only, torch.optim.AdamW)


def test_a_module_of_matrices_alone_needs_no_second_optimizer() -> None:
    (only,) = make_optimizers(nn.Linear(3, 3, bias=False), OptimizerConfig(kind="muon"))
    assert isinstance(only, torch.optim.Muon)


def test_another_kind_is_refused() -> None:
    with pytest.raises(WamError, match="adamw or muon"):
        make_optimizers(Mixed(), OptimizerConfig(kind="sgd"))  # type: ignore[arg-type]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step-00000006" / "training" / "weights.safetensors")


def test_a_run_resumed_with_muon_ends_at_the_same_weights(toy: Path, tmp_path: Path) -> None:
    for name in ("whole", "halves"):
        config = toy_config(toy, tmp_path / name)
        config.optimizer.kind = "muon"
        if name == "halves":
            train(toy_config(toy, tmp_path / name, steps=6, optimizer=config.optimizer))
            later = tmp_path / name / "checkpoints" / "step-00000006"
            for path in sorted(later.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            later.rmdir()
            (tmp_path / name / "checkpoints" / "last").write_text("step-00000003\n")
        train(config)
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_a_run_does_not_go_on_with_another_kind(toy: Path, tmp_path: Path) -> None:
    train(toy_config(toy, tmp_path / "run", steps=3))
    config = toy_config(toy, tmp_path / "run", steps=6)
    config.optimizer.kind = "muon"
    with pytest.raises(WamError, match=r"optimizer\.kind the run was started with"):
        train(config)
