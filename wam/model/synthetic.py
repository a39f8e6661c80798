"""Batches of noise with the shapes a model expects: for measuring what it costs, where what it learns does not matter."""

from __future__ import annotations

import torch

from wam.contracts import Batch
from wam.model.config import ModelConfig

SURFACE = 0.1
"""Share of voxels that have a colour; in a grid over a table it is about as much."""


def synthetic_batch(config: ModelConfig, size: int, *, seed: int = 0) -> Batch:
    """A full batch of `size` windows, on the CPU: every stream the model has is there."""
    g = torch.Generator().manual_seed(seed)
    side, streams = config.image_size, config.streams

    def pictures(times: int) -> torch.Tensor:
        return torch.randint(0, 256, (size, config.views, times, side, side, 3), dtype=torch.uint8, generator=g)

    def chunks(dim: int, length: int = 0) -> torch.Tensor:
        return torch.randn(size, length or config.chunk, dim, generator=g)

    future, action = "future" in streams, "action" in streams
    voxels: dict[str, torch.Tensor] = {}
    if config.occupancy.loss_weight:
        frames = 1 + (len(config.future) if future else 0)
        grid = config.occupancy.grid
        voxels = {
            "occupancy": torch.randint(0, 2, (size, frames, *grid.shape), dtype=torch.uint8, generator=g),
            **_cameras(config, size),
        }
        if config.occupancy.colour_weight:
            paint = torch.randint(0, 256, (*voxels["occupancy"].shape, 4), dtype=torch.uint8, generator=g)
            paint[..., 3] = 255 * (torch.rand(voxels["occupancy"].shape, generator=g) < SURFACE)
            voxels["occupancy_colour"] = paint
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
        **voxels,
        play=torch.arange(size) % 2 == 0,
        instruction=("pick up the red cube and put it on the shelf",) * size if "text" in streams else (),
    )


def _cameras(config: ModelConfig, size: int) -> dict[str, torch.Tensor]:
    """Every view looks straight down at the middle of the grid, and sees all of it."""
    grid = config.occupancy.grid
    extent = grid.side * torch.tensor(grid.shape)
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    pose[:3, 3] = torch.tensor(grid.origin) + extent / 2 + torch.tensor([0.0, 0.0, 2 * float(extent.max())])
    middle = (config.image_size - 1) / 2
    lens = torch.tensor([[config.image_size, 0.0, middle], [0.0, config.image_size, middle], [0.0, 0.0, 1.0]])
    return {
        "intrinsics": lens.expand(size, config.views, 3, 3).clone(),
        "extrinsics": pose.expand(size, config.views, 4, 4).clone(),
    }
