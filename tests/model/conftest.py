"""Tiny models and batches for the model's tests."""

from __future__ import annotations

import pytest
import torch

from wam.contracts import Batch
from wam.model.config import ModelConfig
from wam.model.wam import WorldActionModel

SENTENCES = ("open the faucet", "close it", "press the red button")


def tiny_config(**changes: object) -> ModelConfig:
    config = ModelConfig(width=32, depth=2, heads=2, head_dim=16, image_size=16, **changes)  # type: ignore[arg-type]
    for stream in config.streams.values():
        stream.grid, stream.stem_width = 4, 8
    return config


def make_model(seed: int = 0, **changes: object) -> WorldActionModel:
    """A model whose zero-initialised parts are woken, so that every path carries something."""
    torch.manual_seed(seed)
    model = WorldActionModel(tiny_config(**changes))
    for parameter in model.parameters():
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def make_batch(size: int = 3, *, seed: int = 0, history: int = 1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.randint(0, 256, (size, 2, history, 16, 16, 3), dtype=torch.uint8, generator=g),
        future=torch.randint(0, 256, (size, 2, 2, 16, 16, 3), dtype=torch.uint8, generator=g),
        future_mask=torch.ones(size, 2, dtype=torch.bool),
        state=torch.randn(size, 4, generator=g),
        action=torch.randn(size, 8, 4, generator=g),
        action_mask=torch.ones(size, 8, dtype=torch.bool),
        play=torch.arange(size) % 2 == 0,
        instruction=tuple(SENTENCES[i % len(SENTENCES)] for i in range(size)),
    )


@pytest.fixture
def batch() -> Batch:
    return make_batch()
