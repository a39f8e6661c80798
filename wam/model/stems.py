"""Stems and heads: from a stream's signal to its tokens and summary, and from its tokens back to a prediction.

A **summary** (B, 1, condition width) is what a stream modulates others with. Stems know their stream's clock, so a
summary of a noisy chunk says how far to trust it. Summaries are normalised: at its start an action must weigh as much in
a condition as the clock does, or the world model is slow to notice it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wam.tokenizers.text import TextEncoder


class ClockEmbedding(nn.Module):
    """Clocks (B,) or (B, T) -> conditions (B, 1 or T, width). Sinusoids then an MLP, as in DiT."""

    frequencies: Tensor

    def __init__(self, width: int, *, frequencies: int = 32) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(1000), frequencies)), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, clock: Tensor) -> Tensor:
        clock = clock[:, None] if clock.ndim == 1 else clock
        angles = clock[..., None] * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class EmbodimentLinear(nn.Module):
    """A linear map per robot: weight (embodiments, in, out), chosen by the row's embodiment index.

    Source: GR00T N1 and Cosmos3 give each embodiment its own projections around a shared transformer.
    """

    def __init__(self, embodiments: int, inputs: int, outputs: int, *, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(embodiments, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(embodiments, outputs))

    def forward(self, x: Tensor, embodiment: Tensor | None) -> Tensor:
        """x (B, L, in) -> (B, L, out)."""
        if self.weight.shape[0] == 1 or embodiment is None:
            return x @ self.weight[0] + self.bias[0]
        return torch.baddbmm(self.bias[embodiment][:, None], x, self.weight[embodiment])


class TextStem(nn.Module):
    """Sentences -> tokens (B, L, D) of a fixed length and a summary. Padding is a learned token that may be read, so
    that no mask is needed and a sentence's tokens do not depend on the batch it is in."""

    def __init__(self, encoder: TextEncoder, *, tokens: int, width: int, condition_width: int) -> None:
        super().__init__()
        self.encoder, self.tokens = encoder, tokens
        self.project = nn.Linear(encoder.width, width)
        self.padding = nn.Parameter(torch.zeros(tokens, width))
        self.to_summary = nn.Sequential(nn.Linear(encoder.width, condition_width), nn.SiLU())
        self.summary_out = nn.Sequential(nn.Linear(condition_width, condition_width), nn.LayerNorm(condition_width))

    def forward(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        features, mask = self.encoder(sentences)
        features, mask = features[:, : self.tokens], mask[:, : self.tokens, None]
        mean = (features * mask).sum(1) / mask.sum(1).clamp_min(1)
        h = self.padding.expand(len(sentences), -1, -1).to(features.dtype).clone()
        h[:, : features.shape[1]] = torch.where(mask, self.project(features), h[:, : features.shape[1]])
        summary = self.summary_out(self.to_summary(mean))[:, None]
        return h, summary


class VideoSummary(nn.Module):
    """All tokens of a video stream (B, L, D), places kept apart -> a summary. A short way from pixels to actions, as a
    small cloning network has."""

    def __init__(self, tokens: int, *, width: int, condition_width: int, channels: int = 64) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Linear(width, channels), nn.LayerNorm(channels), nn.SiLU())
        self.join = nn.Linear(tokens * channels, condition_width)
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(condition_width, condition_width), nn.LayerNorm(condition_width))

    def forward(self, h: Tensor, clock: Tensor | None = None) -> Tensor:
        """clock (B, condition width): the embedded clock of a noisy stream."""
        joined = self.join(self.narrow(h).flatten(1))
        return self.out(joined if clock is None else joined + clock)[:, None]


class VectorStem(nn.Module):
    """A state (B, S) -> one token and a summary; a missing state is a learned token."""

    def __init__(self, dim: int, *, embodiments: int, prompts: int, width: int, condition_width: int) -> None:
        super().__init__()
        self.project = EmbodimentLinear(embodiments, dim, width)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, width))
        self.missing = nn.Parameter(torch.zeros(width))
        self.prompts = nn.Parameter(0.02 * torch.randn(embodiments, prompts, width))
        self.to_summary = nn.Sequential(nn.Linear(width, condition_width), nn.LayerNorm(condition_width))

    def forward(self, state: Tensor, absent: Tensor, embodiment: Tensor | None) -> tuple[Tensor, Tensor]:
        """state (B, S) normalised; absent (B,) bool."""
        token = self.mlp(self.project(state[:, None], embodiment))
        token = torch.where(absent[:, None, None], self.missing, token)
        rows = torch.zeros(len(state), dtype=torch.long, device=state.device) if embodiment is None else embodiment
        return torch.cat([token, self.prompts[rows].to(token.dtype)], dim=1), self.to_summary(token)


class ChunkStem(nn.Module):
    """A chunk (B, K, A) -> K tokens, registers, and a summary of the whole chunk with its clock."""

    def __init__(
        self, dim: int, length: int, *, embodiments: int, registers: int, width: int, condition_width: int
    ) -> None:
        super().__init__()
        self.project = EmbodimentLinear(embodiments, dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.registers = nn.Parameter(0.02 * torch.randn(registers, width))
        self.summary_in = EmbodimentLinear(embodiments, length * dim, condition_width)
        self.summary_out = nn.Sequential(
            nn.SiLU(), nn.Linear(condition_width, condition_width), nn.LayerNorm(condition_width)
        )

    def forward(self, chunk: Tensor, clock: Tensor, embodiment: Tensor | None) -> tuple[Tensor, Tensor]:
        """clock (B, condition width): the embedded clock of the chunk."""
        h = self.project(chunk, embodiment) + self.position[: chunk.shape[1]]
        registers = self.registers.expand(len(chunk), -1, -1).to(h.dtype)
        summary = self.summary_out(self.summary_in(chunk.flatten(1)[:, None], embodiment) + clock[:, None])
        return torch.cat([h, registers], dim=1), summary


class ChunkHead(nn.Module):
    """Chunk tokens -> prediction (B, K, A); zero at the start of training.

    Beside the tokens, the condition is read out directly: what the summaries of observation, text and state say of the
    chunk, as a small cloning network would; the tokens refine it.
    """

    def __init__(self, dim: int, length: int, *, embodiments: int, width: int, condition_width: int) -> None:
        super().__init__()
        self.dim = dim
        self.read = nn.Sequential(nn.Linear(condition_width, 2 * condition_width), nn.SiLU())
        self.read_out = EmbodimentLinear(embodiments, 2 * condition_width, length * dim, zero=True)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.to_shift_scale = nn.Linear(condition_width, 2 * width)
        self.project = EmbodimentLinear(embodiments, width, dim, zero=True)

    def forward(self, h: Tensor, condition: Tensor, embodiment: Tensor | None) -> Tensor:
        shift, scale = self.to_shift_scale(nn.functional.silu(condition)).chunk(2, dim=-1)
        read = self.read_out(self.read(condition), embodiment).unflatten(-1, (-1, self.dim))[:, 0, : h.shape[1]]
        return read + self.project(torch.addcmul(shift, self.norm(h), 1 + scale), embodiment)
