"""Chunk heads of a compact policy: from one feature of all that is seen and told to a chunk of actions.

`l1` prints the chunk in one pass. `flow` starts from noise and takes a few steps. Its network says where the straight way
ends on which the chunk gets from one clock to another, D(x, t, s), so that a step is

    x_s = (s / t) x_t + (1 - s / t) D(x_t, t, s)

At s = t this is the usual prediction of the clean chunk, and steps are Euler's. Trained for s < t it is a flow map
(Boffi et al. 2024, with the mean velocity of Geng et al. 2025 written as the point it leads to): long steps are then exact.
"""

from __future__ import annotations

import itertools

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.diffusion.clocks import ClockConfig, draw_clock, sampling_clocks
from wam.diffusion.flow import SMALLEST_CLOCK, add_noise, expand_clock
from wam.model.stems import ClockEmbedding

CLOCK = ClockConfig(shift=3.0, full_noise=0.3)
"""Of flow matching in training: few steps start at high noise."""
SAMPLING_SHIFT = 3.0


class ChunkHead(nn.Module):
    """W -> (K, A). Chunks are normalised."""

    def loss(self, z: Tensor, chunk: Tensor, mask: Tensor, *, generator: torch.Generator) -> Tensor:
        """z (B, W); chunk (B, K', A), the first K' <= K steps of it; mask (B, K'), a weight for each. A mean over real
        steps, 0 where there are none."""
        raise NotImplementedError

    def sample(self, z: Tensor, noise: Tensor, *, steps: int) -> Tensor:
        """(B, K, A) from noise of that shape."""
        raise NotImplementedError


def over_real_steps(error: Tensor, mask: Tensor) -> Tensor:
    """The mean of error (B, K', A) where mask (B, K') is above 0."""
    return (error.mean(-1) * mask).sum() / mask.sum().clamp_min(1)


class L1Head(ChunkHead):
    """One layer; the mean absolute error, as in OpenVLA-OFT (Kim et al. 2025)."""

    def __init__(self, width: int, chunk: int, dim: int) -> None:
        super().__init__()
        self.chunk, self.out = chunk, nn.Linear(width, chunk * dim)

    def forward(self, z: Tensor) -> Tensor:
        return rearrange(self.out(z), "b (k a) -> b k a", k=self.chunk)

    def loss(self, z: Tensor, chunk: Tensor, mask: Tensor, *, generator: torch.Generator) -> Tensor:
        return over_real_steps((self(z)[:, : chunk.shape[1]].float() - chunk).abs(), mask)

    def sample(self, z: Tensor, noise: Tensor, *, steps: int) -> Tensor:
        return self(z)


class FlowHead(ChunkHead):
    """A small residual network of the whole noisy chunk, modulated by the feature and both clocks.

    maps: whether it was trained between clocks, so that a step asks for where it leads and not for where it points.
    """

    def __init__(self, width: int, chunk: int, dim: int, *, depth: int = 2, maps: bool = False) -> None:
        super().__init__()
        self.chunk, self.dim, self.maps = chunk, dim, maps
        self.clock = ClockEmbedding(width, frequencies=16)
        self.join = nn.Linear(2 * width, width)
        self.project = nn.Linear(chunk * dim, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(depth))
        self.modulation = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.read = nn.Linear(width, chunk * dim)
        self.out = nn.Linear(width, chunk * dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor, x: Tensor, now: Tensor, then: Tensor) -> Tensor:
        """D(x, now, then): z (B, W), x (B, K, A), clocks (B,)."""
        clocks = self.clock(torch.stack([now, then], dim=1))
        condition = F.silu(z + self.join(clocks.flatten(1)))
        h = self.project(x.flatten(1))
        for norm, modulation, block in zip(self.norms, self.modulation, self.blocks, strict=True):
            scale, shift = modulation(condition).chunk(2, dim=-1)
            h = h + block(norm(h) * (1 + scale) + shift)
        return (self.read(z) + self.out(h)).unflatten(-1, (self.chunk, self.dim))

    def loss(self, z: Tensor, chunk: Tensor, mask: Tensor, *, generator: torch.Generator) -> Tensor:
        """Flow matching: the squared error of the clean chunk at a random clock. Steps that are not there are taken to be
        noise, about which nothing is known."""
        clock = draw_clock(len(chunk), CLOCK, generator=generator).clamp_min(SMALLEST_CLOCK).to(z.device)
        noise = torch.randn(len(chunk), self.chunk, self.dim, generator=generator).to(z.device)
        known = F.pad((mask > 0).to(chunk.dtype), (0, self.chunk - chunk.shape[1]))[..., None]
        noisy = add_noise(F.pad(chunk, (0, 0, 0, self.chunk - chunk.shape[1])), noise, clock)
        found = self(z, torch.where(known > 0, noisy, noise), clock, clock).float()
        return over_real_steps((found[:, : chunk.shape[1]] - chunk).square(), mask)

    def map_loss(self, z: Tensor, path: Tensor, clocks: Tensor, *, generator: torch.Generator) -> Tensor:
        """path (B, P + 1, K, A): a chunk at these falling clocks (P + 1,), as a teacher's solver carried it. Two of them are
        drawn for each row, and the map between them learned."""
        size, count = path.shape[:2]
        first, second = torch.rand(size, count, generator=generator).argsort(1)[:, :2].sort(1).values.unbind(1)
        rows = torch.arange(size)
        now, then = clocks[first].to(z.device), clocks[second].to(z.device)
        x, ahead = path[rows, first], path[rows, second]
        velocity = (x - ahead) / expand_clock(now - then, x)
        ends = x - expand_clock(now, x) * velocity
        return (self(z, x, now, then).float() - ends).square().mean()

    def sample(self, z: Tensor, noise: Tensor, *, steps: int) -> Tensor:
        x = noise
        clocks = sampling_clocks(steps, shift=SAMPLING_SHIFT).tolist()
        for now, then in itertools.pairwise(clocks):
            here, there = (torch.full_like(z[:, 0], clock) for clock in (now, then if self.maps else now))
            x = torch.lerp(self(z, x, here, there), x, then / now)
        return x


def make_head(kind: str, width: int, chunk: int, dim: int, *, maps: bool) -> ChunkHead:
    return FlowHead(width, chunk, dim, maps=maps) if kind == "flow" else L1Head(width, chunk, dim)
