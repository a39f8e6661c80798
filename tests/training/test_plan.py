"""Plans: counts that can be checked by hand, with the datasets and without them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import Batch, WamError
from wam.data.writer import EpisodeWriter
from wam.model.config import ConditionalConfig, ModelConfig
from wam.model.wam import WorldActionModel
from wam.training.config import DataConfig, DataPart, TrainConfig
from wam.training.count import count_flops, count_parameters, saved_bytes
from wam.training.plan import Plan, plan


def tiny(**changes: Any) -> TrainConfig:
    model = ModelConfig(width=32, depth=2, heads=2, head_dim=16, image_size=16)
    for stream in model.streams.values():
        stream.grid, stream.stem_width = 4, 8
    return TrainConfig(**{"model": model, "batch_size": 4, "steps": 100, "precision": "fp32", **changes})


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(tiny(data=DataConfig(parts=[DataPart(root="nowhere/at-all")])), price_per_hour=3.0, device="cpu")


def images(size: int, count: int) -> Batch:
    return Batch(images=torch.zeros(count, 1, 1, size, size, 3, dtype=torch.uint8))


def test_parameters_are_counted_once_and_by_part() -> None:
    model = WorldActionModel(tiny().model)
    parts = count_parameters(model)
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    assert parts["transformer, action"] == sum(
        p.numel() for p in model.network.transformer.experts["action"].parameters()
    )
    assert {"text encoder", "stem, observation", "head, future", "edges", "clock"} <= set(parts)


def test_memory_holds_what_adam_and_the_average_need(planned: Plan) -> None:
    weights = 4 * sum(planned.parameters.values())
    assert planned.trainable == sum(planned.parameters.values())
    assert weights <= planned.memory["weights"] <= 1.01 * weights
    assert planned.memory["averaged copy"] == planned.memory["weights"]
    assert 0.9 * weights <= planned.memory["gradients"] <= weights
    assert planned.memory["optimizer"] == pytest.approx(2 * planned.memory["gradients"], rel=0.01)
    assert planned.memory["activations"] > 0


def test_a_linear_layer_costs_four_operations_per_weight_and_window() -> None:
    layer = nn.Linear(48, 10)

    def losses(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": layer(batch.images.float().flatten(1)).sum()}

    assert count_flops(losses, images(4, 3), "fp32") == 4 * 48 * 10  # forward, and backward to the weight alone


def test_fused_attention_is_counted() -> None:
    q = torch.randn(1, 2, 16, 8, requires_grad=True)

    def losses(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": F.scaled_dot_product_attention(q, q, q).sum()}

    product = 2 * 2 * 16 * 16 * 8
    assert count_flops(losses, images(4, 1), "fp32") == pytest.approx(
        6 * product
    )  # two products, each with two gradients


def test_activations_are_what_the_backward_pass_keeps() -> None:
    layer = nn.Linear(48, 10, bias=False)

    def losses(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": layer(batch.images.float().flatten(1)).exp().sum()}

    kept = saved_bytes(losses, images(4, 3), "fp32", but=layer)
    assert kept == 4 * 3 * (48 + 10)  # the layer's input and the exponential's output; the weight is no activation


def test_time_and_cost_follow_from_the_timed_steps(planned: Plan) -> None:
    assert len(planned.timed) == 3
    per_step = float(np.median(planned.timed))
    assert planned.samples_per_second == pytest.approx(4 / per_step)
    assert planned.seconds == pytest.approx(100 * per_step)
    assert planned.cost == pytest.approx(3.0 * planned.seconds / 3600)


def test_a_plan_needs_no_data_and_says_all_it_found(planned: Plan) -> None:
    assert planned.windows is None
    text = str(planned)
    for words in ("parameters", "activations", "GFLOP a window", "windows a second", "100 steps of 4", "time", "cost"):
        assert words in text
    assert all(math.isfinite(value) for value in planned.figures.values())
    assert json.loads(json.dumps(planned.to_dict()))["steps"] == 100


def test_a_plan_takes_dimensions_and_size_from_data_that_is_there(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "data", fps=10) as writer:
        for _ in range(2):
            writer.add_episode(
                images={"side": np.zeros((10, 16, 16, 3), np.uint8)},
                columns={"observation.state": np.zeros((10, 7), np.float32), "action": np.zeros((10, 3), np.float32)},
                task="wait",
                extra={"play": False},
            )
    data = DataConfig(parts=[DataPart(root=str(tmp_path / "data"))], held_out=0.5)
    config = tiny(data=data, steps=0, minutes=0.1)
    found = plan(config, timed_steps=1, device="cpu")
    assert found.windows == 10
    assert found.passes == pytest.approx(found.steps * 4 / 10)
    assert found.memory["frames of the data"] == 10 * 2 * 16 * 16 * 3
    assert found.steps == max(1, int(6 / found.timed[0]))
    assert found.parameters["stem, state"] - plan(tiny(), timed_steps=1).parameters["stem, state"] == 3 * 32
    assert config.model.state_dim == 4  # the config given stays as it was


@pytest.mark.parametrize("stage", ["joint", "pretrain", "posttrain", "cloning", "latent-action"])
def test_every_stage_is_planned(stage: str) -> None:
    config = tiny(stage=stage, data=DataConfig(cameras=["a", "b"]))
    config.latent_action.image_size = 16
    if stage == "pretrain":
        del config.model.streams["action"]
        config.model.conditionals = [ConditionalConfig(name="imagine", weight=1.0, clocks={"future": "draw"})]
    found = plan(config, timed_steps=1, device="cpu")
    assert found.trainable > 0
    assert found.flops_per_sample > 0
    assert found.steps == 100


def test_the_autoencoder_stage_is_planned_too() -> None:
    found = plan(tiny(stage="autoencoder"), timed_steps=1, device="cpu")
    assert {"encoder", "decoder"} <= set(found.parameters)
    assert found.samples_per_second > 0


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"stage": "dreaming"}, {}, "joint, pretrain"),
        ({}, {"timed_steps": 0}, "timed_steps of at least 1"),
        ({}, {"price_per_hour": -1.0}, "price of at least 0"),
    ],
)
def test_what_cannot_be_planned_says_so(changes: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(WamError, match=words):
        plan(tiny(**changes), device="cpu", **options)
