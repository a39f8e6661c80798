"""What a few true actions may teach: latents that can be read as actions, and what they do to the robot's own body.

Reading the mean action linearly follows Motus, predicting the chunk from latent and state follows villa-X.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import Batch
from wam.tokenizers.latent_action.config import LatentActionConfig


class LabelHeads(nn.Module):
    """Losses of labelled windows: `labels`, and `proprio` if it has a weight. Actions and states are scaled by buffers."""

    action_scale: Tensor
    state_scale: Tensor

    def __init__(self, config: LatentActionConfig, *, latent_width: int, action_dim: int, state_dim: int) -> None:
        super().__init__()
        self.config = config.labels
        self.read = nn.Linear(latent_width, action_dim)
        self.proprio = (
            nn.Sequential(
                nn.Linear(latent_width + state_dim, config.width),
                nn.SiLU(),
                nn.Linear(config.width, config.gap * action_dim),
            )
            if config.labels.proprio
            else None
        )
        self.pairs = config.pairs
        self.register_buffer("action_scale", torch.ones(action_dim))
        self.register_buffer("state_scale", torch.ones(max(1, state_dim)))

    def losses(self, batch: Batch, latents: Tensor, labelled: Tensor | None) -> dict[str, Tensor]:
        """latents (B, pairs, latent width); labelled (B,) bool, None meaning all that have actions."""
        zero = latents.sum() * 0
        if batch.action is None:
            return {"labels": zero}
        seen = torch.ones(batch.size, dtype=torch.bool, device=latents.device) if labelled is None else labelled
        if batch.action_mask is not None:
            seen = seen & batch.action_mask.all(dim=1)
        if not bool(seen.any()):
            return {"labels": zero}
        action = rearrange(batch.action[seen] / self.action_scale, "b (k g) a -> b k g a", k=self.pairs)
        known = latents[seen]
        losses = {"labels": self.config.weight * F.mse_loss(self.read(known), action.mean(dim=2))}
        if self.proprio is not None:
            inputs = known
            if batch.state is not None:
                state = (batch.state[seen] / self.state_scale)[:, None].expand(-1, self.pairs, -1)
                inputs = torch.cat([known, state], dim=-1)
            told = rearrange(self.proprio(inputs), "b k (g a) -> b k g a", a=action.shape[-1])
            losses["proprio"] = self.config.proprio * F.mse_loss(told, action)
        return losses
