"""A run on a frozen pretrained backbone with adapters, by the one trainer: files in, checkpoints without the base out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import toy_config
from tests.training.test_trainer import StopAfter, assert_same, weights
from wam.model.backbones.adapters import is_adapter
from wam.model.backbones.config import BackboneConfig, LoraConfig
from wam.model.backbones.load import load_backbone
from wam.model.config import ConditionalConfig, StreamConfig
from wam.model.pretrained import from_pretrained
from wam.tokenizers.text import TextConfig
from wam.tokenizers.video import VideoConfig
from wam.training.config import OptimizerConfig, TrainConfig
from wam.training.stages.joint import JointStage
from wam.training.state import last_checkpoint
from wam.training.trainer import InterruptedRunError, train

pytest.importorskip("peft")
WAN = "wan2.1-t2v-1.3b"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small transformer and a small VAE of Wan's classes, as a diffusers pipeline keeps them."""
    from diffusers import AutoencoderKLWan

    place = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(3)
    load_backbone(WAN, "tiny").network.save_pretrained(place / "transformer")  # type: ignore[operator]
    AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).save_pretrained(place / "vae")
    return place


def wan_config(toy: Path, pipeline: Path, output: Path) -> TrainConfig:
    config = toy_config(
        toy, output, steps=4, save_every=2, check_every=4, batch_size=2, optimizer=OptimizerConfig(warmup=0)
    )
    model = config.model
    model.depth, model.future = 2, [1, 2, 3, 4]
    model.text = TextConfig(width=32)
    model.video = VideoConfig(kind="diffusers", name=str(pipeline), subfolder="vae")
    model.streams["observation"] = StreamConfig(kind="video", shares="future")
    model.streams["future"] = StreamConfig(
        kind="video",
        predicts="velocity",
        backbone=BackboneConfig(name=WAN, source=str(pipeline), frozen=True),
        lora=LoraConfig(rank=2),
    )
    model.conditionals = [
        ConditionalConfig(name="policy", weight=1.0, clocks={"action": "draw", "future": "dropped"}),
        ConditionalConfig(name="joint", weight=1.0, clocks={"action": "draw", "future": "draw"}),
    ]
    return config


def test_a_run_with_adapters_resumes_to_the_same_weights_and_saves_no_base(
    toy: Path, pipeline: Path, tmp_path: Path
) -> None:
    train(wan_config(toy, pipeline, tmp_path / "whole"))
    parts = wan_config(toy, pipeline, tmp_path / "parts")
    torch.manual_seed(0)
    with pytest.raises(InterruptedRunError):
        train(parts, stage=StopAfter(JointStage(parts), 2, 2))  # type: ignore[arg-type]
    train(wan_config(toy, pipeline, tmp_path / "parts"))
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    folder = last_checkpoint(tmp_path / "whole")
    assert folder is not None
    model = from_pretrained(folder)
    borrowed = model.borrowed()
    assert borrowed
    for file in (folder / "model.safetensors", folder / "training" / "weights.safetensors"):
        held = set(load_file(file))
        assert not held & borrowed
        assert any(is_adapter(name) for name in held)
    moved = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert moved
    assert all(p.abs().sum() > 0 for p in moved), "adapters start at zero"
    base = load_file(pipeline / "transformer" / "diffusion_pytorch_model.safetensors")
    kept = model.network.transformer.layers("future")[1].block.ffn.net[2].weight
    assert torch.equal(kept, base["blocks.1.ffn.net.2.weight"])
