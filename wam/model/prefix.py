"""Trained prefix: the first actions of a chunk are settled, and the rest is drawn so that it goes on from them.

Source: Black et al. 2025, "Training-Time Action Conditioning for Efficient Real-Time Chunking". The settled actions are given
clean at a clock of their own, 0, in training as in sampling, while the rest has the clock that was drawn. So a chunk
has two clocks, and each token is modulated by its own.

Reading them is not enough here either (docs/architecture.md, *Two kinds of edges*): a summary of what is settled also joins
what the rest is told of its clock, and so reaches its layers, its head and the summary by which it steers the future.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam.model.config import ModelConfig
from wam.model.stems import EmbodimentLinear


class PrefixStem(nn.Module):
    """Settled actions -> what the rest of their chunk is told of them; nothing where none is settled.

    longest: of the prefixes that training gives; dim: A.
    """

    def __init__(self, dim: int, longest: int, *, embodiments: int, condition_width: int) -> None:
        super().__init__()
        self.longest = longest
        self.join = EmbodimentLinear(embodiments, longest * (dim + 1), condition_width)
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(condition_width, condition_width), nn.LayerNorm(condition_width))

    @classmethod
    def of(cls, config: ModelConfig) -> PrefixStem:
        return cls(
            config.action_dim,
            config.longest_prefix,
            embodiments=config.embodiments,
            condition_width=config.condition_width,
        )

    def forward(self, chunk: Tensor, settled: Tensor, embodiment: Tensor | None) -> Tensor:
        """chunk (B, K, A), settled (B, K) bool -> (B, 1, condition width). What is not settled is not looked at."""
        there = settled[:, : self.longest, None]
        known = torch.cat([chunk[:, : self.longest] * there, there.to(chunk.dtype)], dim=2)
        told = self.out(self.join(known.flatten(1)[:, None], embodiment))
        return told * settled.any(1)[:, None, None]


def padded(settled: Tensor, tokens: int) -> Tensor:
    """(B, K) -> (B, tokens): registers come after a chunk's steps and are not settled."""
    return F.pad(settled, (0, tokens - settled.shape[1]))
