"""A run on a vision-language backbone by the one trainer: pi0-like, insulated, with FAST tokens; resumed, saved and opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.model.backbones.test_vlm_load import save_tiny
from tests.training.conftest import toy_config
from tests.training.test_trainer import StopAfter, assert_same, weights
from wam.model.backbones.config import BackboneConfig, LoraConfig
from wam.model.config import ConditionalConfig, StreamConfig
from wam.model.pretrained import from_pretrained
from wam.tokenizers.action_codes import ActionTokenConfig
from wam.training.config import OptimizerConfig, TrainConfig
from wam.training.stages.joint import JointStage
from wam.training.state import last_checkpoint
from wam.training.trainer import InterruptedRunError, train

SMOL = "smolvlm2-500m"


def vlm_run(toy: Path, output: Path, backbone: BackboneConfig, **changes: object) -> TrainConfig:
    config = toy_config(
        toy, output, steps=4, save_every=2, check_every=4, batch_size=2, optimizer=OptimizerConfig(warmup=0), **changes
    )
    model = config.model
    model.depth, model.width, model.text_dropout = 2, 24, 0.0
    model.visibility = {
        "extends": "insulated",
        "sees": {"state": {"state": True}, "action": {"observation": "detached", "state": True, "action": True}},
    }
    model.action_tokens = ActionTokenConfig(kind="fast", vocabulary=160, reach=63)
    model.streams = {
        "observation": StreamConfig(kind="video", tokens=24, backbone=backbone),
        "state": StreamConfig(kind="vector"),
        "action": StreamConfig(kind="chunk", predicts="velocity"),
    }
    model.conditionals = [ConditionalConfig(name="policy", weight=1.0, clocks={"action": "draw"})]
    return config


def test_an_insulated_run_resumes_to_the_same_weights_and_moves_both_experts(toy: Path, tmp_path: Path) -> None:
    tiny = BackboneConfig(name=SMOL, weights="tiny")
    result = train(vlm_run(toy, tmp_path / "whole", tiny))
    assert set(result.losses) == {"loss", "action", "action_tokens"}
    parts = vlm_run(toy, tmp_path / "parts", tiny)
    torch.manual_seed(0)
    with pytest.raises(InterruptedRunError):
        train(parts, stage=StopAfter(JointStage(parts), 2, 2))  # type: ignore[arg-type]
    train(vlm_run(toy, tmp_path / "parts", tiny))
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    torch.manual_seed(0)
    fresh = JointStage(vlm_run(toy, tmp_path / "fresh", tiny)).model.state_dict()
    after = weights(tmp_path / "whole")
    for stream in ("observation", "action"):
        names = [n for n in after if f"experts.{stream}.0" in n and n.endswith(("v_proj.weight", "to_qkv.weight"))]
        assert names
        assert all(not torch.equal(after[n], fresh[n]) for n in names)
    folder = last_checkpoint(tmp_path / "whole")
    assert folder is not None
    assert (folder / "action_tokens.json").is_file()
    assert from_pretrained(folder).config.streams["observation"].backbone == tiny


def test_a_run_with_adapters_on_a_pretrained_base_saves_no_base(toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    place = save_tiny(tmp_path / "smolvlm")
    config = vlm_run(toy, tmp_path / "run", BackboneConfig(name=SMOL, source=str(place), frozen=True))
    config.model.streams["observation"].lora = LoraConfig(rank=2)
    train(config)
    folder = last_checkpoint(tmp_path / "run")
    assert folder is not None
    model = from_pretrained(folder)
    borrowed, held = model.borrowed(), set(load_file(folder / "model.safetensors"))
    assert borrowed
    assert not held & borrowed
    moved = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert moved
    assert any(p.abs().sum() > 0 for p in moved), "adapters start at zero"
    base = load_file(place / "model.safetensors")
    kept = model.network.transformer.layers("observation")[1].block.mlp.up_proj.weight
    assert torch.equal(kept, base["model.text_model.layers.1.mlp.up_proj.weight"])
    assert model.provenance["parts"]["backbones"]["observation"]["source"] == str(place)
