"""Muon steps the weights of layers and AdamW the rest; both are saved and go on where they stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.conftest import toy_config
from wam.contracts import WamError
from wam.training.config import OptimizerConfig
from wam.training.optimizer import make_optimizers
from wam.training.state import flatten_optimizers, restore_optimizers
from wam.training.trainer import train


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv = nn.Embedding(5, 8), nn.Conv2d(1, 2, 3)
        self.inner, self.frozen = nn.Linear(8, 6), nn.Linear(2, 2).requires_grad_(False)


def test_every_trained_parameter_is_stepped_by_one_and_weights_of_layers_by_muon() -> None:
    module = Mixed()
    adamw, muon = make_optimizers(module, OptimizerConfig(kind="muon"))
    assert isinstance(muon, torch.optim.Muon)
    by_adamw = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert by_adamw == {id(p) for p in (module.table.weight, module.conv.bias, module.inner.bias)}
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    seen = module.conv(torch.ones(1, 1, 4, 4)).sum() + module.inner(module.table(torch.tensor([1]))).sum()
    seen.backward()
    for optimizer in (adamw, muon):
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if not name.startswith("frozen")}
    assert all(p.grad is None for p in module.parameters())


def test_a_convolution_is_stepped_as_the_matrix_it_is() -> None:
    torch.manual_seed(0)
    conv, plain = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(27, 4, bias=False)
    plain.weight.data.copy_(conv.weight.flatten(1))
    gradient = torch.randn(4, 3, 3, 3)
    for layer, grad in ((conv, gradient), (plain, gradient.flatten(1))):
        (muon,) = make_optimizers(layer, OptimizerConfig(kind="muon", learning_rate=0.1))
        for _ in range(3):
            layer.weight.grad = grad.clone()
            muon.step()
            muon.zero_grad()
    torch.testing.assert_close(conv.weight.flatten(1), plain.weight)


def test_muon_follows_a_module_that_moves_to_other_memory() -> None:
    layer = nn.Linear(4, 4, bias=False)
    (muon,) = make_optimizers(layer, OptimizerConfig(kind="muon"))
    layer.weight.data = layer.weight.data.clone()
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(4, 4)
    muon.step()
    assert not torch.equal(layer.weight, before)


def test_adamw_alone_steps_everything() -> None:
    (only,) = make_optimizers(Mixed(), OptimizerConfig())
    assert isinstance(only, torch.optim.AdamW)


def test_a_module_of_matrices_alone_needs_no_second_optimizer() -> None:
    (only,) = make_optimizers(nn.Linear(3, 3, bias=False), OptimizerConfig(kind="muon"))
    assert isinstance(only, torch.optim.Muon)


def test_another_kind_is_refused() -> None:
    with pytest.raises(WamError, match="adamw, muon or adamw8bit"):
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


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, package: object) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", getattr(package, "optim", None))


def test_eight_bits_need_a_gpu_and_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    config = OptimizerConfig(kind="adamw8bit")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(WamError, match=r"a GPU for optimizer\.kind=adamw8bit"):
        make_optimizers(Mixed(), config)
    pretend_gpu(monkeypatch, None)
    with pytest.raises(WamError, match=r"bitsandbytes.*pip install 'wam\[eight-bit\]'") as error:
        make_optimizers(Mixed(), config)
    assert "\n" not in str(error.value)


def test_eight_bits_step_what_adamw_would_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("bitsandbytes")
    package.optim = SimpleNamespace(AdamW8bit=torch.optim.AdamW)  # type: ignore[attr-defined]
    pretend_gpu(monkeypatch, package)
    module = Mixed()
    (found,) = make_optimizers(module, OptimizerConfig(kind="adamw8bit", learning_rate=0.2, betas=(0.8, 0.9)))
    (group,) = found.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in module.parameters() if p.requires_grad}
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.2, (0.8, 0.9), 0.01)


def test_state_within_state_is_saved_and_restored() -> None:
    """bitsandbytes keeps its 8-bit moments in a dictionary inside each parameter's own."""

    class Nested(torch.optim.SGD):
        def state_dict(self) -> dict[str, Any]:
            inner = {"absmax": torch.ones(2), "bits": torch.zeros(3, dtype=torch.uint8)}
            return {"state": {0: {"step": 4, "quantised": inner}}, "param_groups": super().state_dict()["param_groups"]}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.found = state_dict["state"]

    made = Nested([nn.Parameter(torch.zeros(2))], lr=0.1)
    tensors, rest = flatten_optimizers([made])
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    restore_optimizers([made], tensors, json.loads(json.dumps(rest)))
    assert made.found[0]["step"] == 4
    assert torch.equal(made.found[0]["quantised"]["bits"], torch.zeros(3, dtype=torch.uint8))
