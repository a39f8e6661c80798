"""What every wrapped video transformer offers: its two ends, and layers that a joint transformer takes as experts.

The original forward pass is cut at attention. A layer's `qkv` gives queries, keys and values with the network's own norms
and rotations; `update` takes what was attended to and does the rest of the block, its cross-attention to text included. The
ends make tokens of latents, tell the layers the clock and the text, and turn tokens back into a prediction.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from wam.contracts import expected
from wam.model.backbones.load import Description
from wam.model.expert import Rotary, modulate

Grid = tuple[int, int, int]
"""Tokens along time, height and width."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the network's own cross-attention reads, and the latents that guide it.

    text (B, L, D'), as its text projection gives it, picture features before it where it reads some. bias (B, 1, L): added
    to the scores of text that is padding, where the network masks it. guide (B, c, T, h, w): latents of the first frame
    followed by grey ones, where it takes them.
    """

    text: Tensor
    bias: Tensor | None = None
    guide: Tensor | None = None

    def take(self, rows: Tensor) -> Prompt:
        """The rows of these indices (N,)."""
        bias, guide = (None if x is None else x[rows] for x in (self.bias, self.guide))
        return replace(self, text=self.text[rows], bias=bias, guide=guide)

    def expand(self, repeats: int) -> Prompt:
        """Each row repeated."""
        return self.take(torch.arange(len(self.text), device=self.text.device).repeat_interleave(repeats))


@dataclass(frozen=True, kw_only=True)
class Told:
    """What all layers are told beside their tokens: the time embedding, embedded (B, G, D) and projected (B, G, n, D) as the
    family projects it, and the prompt. G is 1 or the frames, whose tokens share one."""

    embedded: Tensor
    projected: Tensor
    prompt: Prompt


class Layer(nn.Module, abc.ABC):
    """A block of the original as an expert (see `wam.model.expert.Expert`); `block` is the diffusers module, untouched."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block: Any = block

    @abc.abstractmethod
    def modulation(self, told: Told) -> Any:
        """Shifts, scales and gates (B, G, D) of this layer, with the prompt it reads."""

    @abc.abstractmethod
    def qkv(self, h: Tensor, modulation: Any, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        """h (B, L, D) -> queries, keys, values, each (B, N, L, head_dim)."""

    @abc.abstractmethod
    def update(self, h: Tensor, attended: Tensor, modulation: Any) -> Tensor:
        """attended (B, N, L, head_dim) -> the stream after this block (B, L, D)."""


class Ends(nn.Module, abc.ABC):
    """The original without its blocks. `network` is the diffusers module, whose list `blocks_at` is empty."""

    blocks_at: ClassVar[str]

    def __init__(self, network: nn.Module, description: Description) -> None:
        super().__init__()
        self.network: Any = network
        self.description = description

    def grid(self, latents: Tensor) -> Grid:
        """Of the tokens of latents (B, c, T, h, w)."""
        t, h, w = self.description.patch
        frames, height, width = latents.shape[2:]
        if frames % t or height % h or width % w:
            raise expected(
                f"latents whose frames, height and width are multiples of {self.description.patch}",
                got=(frames, height, width),
                do="change the image size",
            )
        return frames // t, height // h, width // w

    @abc.abstractmethod
    def embed(self, latents: Tensor, clocks: Tensor, prompt: Prompt) -> Tensor:
        """Latents (B, c, T, h, w) at clocks (B, T), 0 being a frame that is given -> tokens (B, L, D), frame by frame."""

    @abc.abstractmethod
    def rotary(self, grid: Grid, *, start: int, device: torch.device) -> Rotary:
        """The original's positions of frames start, start + 1, ... as (cos, sin) for its layers."""

    @abc.abstractmethod
    def tell(self, clocks: Tensor, prompt: Prompt, steering: Tensor | None = None) -> Told:
        """clocks (B, 1 or T). steering (B, 1 or T, D) is added to the embedded time, from which all modulation comes."""

    @abc.abstractmethod
    def read(self, features: Tensor, mask: Tensor, picture: Tensor | None = None) -> Prompt:
        """Text features (B, L, text_width) with mask (B, L) bool, padded as the network was trained, and picture features
        (B, M, image_width) -> what cross-attention reads."""

    @abc.abstractmethod
    def predict(self, h: Tensor, told: Told, grid: Grid) -> Tensor:
        """Tokens after the last block -> the velocity noise - x of the latents (B, c, T, h, w)."""

    def padded(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features and mask at the length the network was trained on, zero where there is no text."""
        known = self.description
        if features.shape[-1] != known.text_width:
            raise expected(
                f"text features of width {known.text_width}, on which this network was trained",
                got=features.shape[-1],
                do="set `model.text` to its own encoder (kind: pretrained, subfolder: text_encoder of its repository)",
            )
        features = (features * mask[..., None])[:, : known.text_tokens]
        missing = known.text_tokens - features.shape[1]
        mask = nn.functional.pad(mask[:, : known.text_tokens], (0, missing))
        return nn.functional.pad(features, (0, 0, 0, missing)), mask

    def steered(self, embedded: Tensor, steering: Tensor | None) -> Tensor:
        return embedded if steering is None else embedded + steering.to(embedded.dtype)


def normed(norm: nn.Module, h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN in float32 whatever h is in, as Wan's blocks do; shift and scale (B, G, D)."""
    return modulate(norm(h.float()), shift.float(), scale.float()).type_as(h)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, N * head_dim) -> (B, N, L, head_dim)."""
    return rearrange(x, "b l (n d) -> b n l d", n=heads)


def join_heads(x: Tensor) -> Tensor:
    return rearrange(x, "b n l d -> b l (n d)")


def rotate_pairs(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn neighbouring pairs (0, 1), (2, 3), ... of the last axis; cos and sin broadcast with x, each angle twice."""
    cos, sin = rotary
    left, right = x.unflatten(-1, (-1, 2)).float().unbind(-1)
    turned = torch.stack([-right, left], dim=-1).flatten(-2)
    return (x.float() * cos + turned * sin).type_as(x)


def sinusoids(timesteps: nn.Module, clocks: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """clocks (B, G) through the original's sinusoids: (B, G, frequencies)."""
    return timesteps((clocks * scale).flatten()).to(dtype).unflatten(0, clocks.shape)
