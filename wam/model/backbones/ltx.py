"""LTX-Video (Lightricks 2024), of diffusers' LTXVideoTransformer3DModel: a time step for each token, one latent in each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from wam.model.backbones.interface import (
    Ends,
    Grid,
    Layer,
    Prompt,
    Told,
    join_heads,
    normed,
    rotate_pairs,
    sinusoids,
    split_heads,
)
from wam.model.expert import Rotary, gated

MASKED = -10000.0
"""What diffusers adds to the scores of text that is padding."""


class LtxModulation(NamedTuple):
    """The prompt that is read; the rest each (B, G, D)."""

    prompt: Prompt
    shift: Tensor
    scale: Tensor
    gate: Tensor
    shift_mlp: Tensor
    scale_mlp: Tensor
    gate_mlp: Tensor


class LtxLayer(Layer):
    def modulation(self, told: Told) -> LtxModulation:
        return LtxModulation(told.prompt, *(self.block.scale_shift_table + told.projected).unbind(dim=2))

    def qkv(self, h: Tensor, modulation: LtxModulation, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        attention = self.block.attn1
        x = normed(self.block.norm1, h, modulation.shift, modulation.scale)
        q, k, v = attention.norm_q(attention.to_q(x)), attention.norm_k(attention.to_k(x)), attention.to_v(x)
        if rotary is not None:  # before the heads part: each turns at frequencies of its own
            q, k = rotate_pairs(q, rotary), rotate_pairs(k, rotary)
        return split_heads(q, attention.heads), split_heads(k, attention.heads), split_heads(v, attention.heads)

    def update(self, h: Tensor, attended: Tensor, modulation: LtxModulation) -> Tensor:
        block, prompt = self.block, modulation.prompt
        out, dropout = block.attn1.to_out
        h = gated(h.float(), dropout(out(join_heads(attended))).float(), modulation.gate.float()).type_as(h)
        h = h + block.attn2(h, encoder_hidden_states=prompt.text, attention_mask=prompt.bias)
        x = normed(block.norm2, h, modulation.shift_mlp, modulation.scale_mlp)
        return gated(h.float(), block.ff(x).float(), modulation.gate_mlp.float()).type_as(h)


class LtxEnds(Ends):
    blocks_at = "transformer_blocks"

    def embed(self, latents: Tensor, clocks: Tensor, prompt: Prompt) -> Tensor:
        t, i, j = self.description.patch
        return self.network.proj_in(rearrange(latents, "b c (t p) (h i) (w j) -> b (t h w) (c p i j)", p=t, i=i, j=j))

    def rotary(self, grid: Grid, *, start: int, device: torch.device) -> Rotary:
        """Seconds and pixels, of which a latent holds as many as the VAE joins."""
        frames, height, width = grid
        known = self.description
        scale = (known.temporal / known.fps, float(known.spatial), float(known.spatial))
        shape = torch.empty(1, 0, device=device)
        cos, sin = self.network.rope(shape, start + frames, height, width, rope_interpolation_scale=scale)
        return cos[:, start * height * width :], sin[:, start * height * width :]

    def tell(self, clocks: Tensor, prompt: Prompt, steering: Tensor | None = None) -> Told:
        time = self.network.time_embed
        embedder = time.emb.timestep_embedder
        waves = sinusoids(time.emb.time_proj, clocks, self.description.clock_scale, embedder.linear_1.weight.dtype)
        embedded = self.steered(embedder(waves), steering)
        projected = time.linear(time.silu(embedded)).unflatten(-1, (6, -1))
        return Told(embedded=embedded, projected=projected, prompt=prompt)

    def read(self, features: Tensor, mask: Tensor, picture: Tensor | None = None) -> Prompt:
        features, mask = self.padded(features, mask)
        return Prompt(
            text=self.network.caption_projection(features), bias=((1 - mask.to(features.dtype)) * MASKED)[:, None]
        )

    def predict(self, h: Tensor, told: Told, grid: Grid) -> Tensor:
        shift, scale = (self.network.scale_shift_table + told.embedded[:, :, None]).unbind(dim=2)
        t, i, j = self.description.patch
        return rearrange(
            self.network.proj_out(normed(self.network.norm_out, h, shift, scale)),
            "b (t h w) (c p i j) -> b c (t p) (h i) (w j)",
            t=grid[0],
            h=grid[1],
            p=t,
            i=i,
            j=j,
        )
