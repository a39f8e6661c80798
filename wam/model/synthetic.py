"""Batches of noise with the shapes a model expects: for measuring what it costs, where what it learns does not matter."""

from __future__ import annotations

import torch

from wam.contracts import Batch
from wam.model.config import ModelConfig


def synthetic_batch(config: ModelConfig, size: int, *, seed: int = 0) -> Batch:
    """A full batch of `size` windows, on the CPU: every stream the model has is there."""
    g = torch.Generator().manual_seed(seed)
    side, streams = config.image_size, config.streams

    def pictures(times: int) -> torch.Tensor:
        return torch.randint(0, 256, (size, config.views, times, side, side, 3), dtype=torch.uint8, generator=g)

    def chunks(dim: int, length: int = 0) -> torch.Tensor:
        return torch.randn(size, length or config.chunk, dim, generator=g)

    future, action = "future" in streams, "action" in streams
    return Batch(
        images=pictures(config.history),
        future=pictures(len(config.future)) if future else None,
        future_mask=torch.ones(size, len(config.future), dtype=torch.bool) if future else None,
        state=torch.randn(size, config.state_dim, generator=g) if config.vectors else None,
        action=chunks(config.action_dim) if action else None,
        action_mask=torch.ones(size, config.chunk, dtype=torch.bool) if action else None,
        latent_action=chunks(config.latent_action_dim, config.latent_action_length)
        if "latent_action" in streams
        else None,
        value=torch.randn(size, generator=g) if "value" in streams else None,
        play=torch.arange(size) % 2 == 0,
        instruction=("pick up the red cube and put it on the shelf",) * size if "text" in streams else (),
    )
