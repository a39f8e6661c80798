"""Cosmos-Predict2 and 2.5 (NVIDIA 2025), of diffusers' CosmosTransformer3DModel: given frames are marked in a channel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from wam.model.backbones.interface import (
    Ends,
    Grid,
    Layer,
    Prompt,
    Told,
    join_heads,
    normed,
    sinusoids,
    split_heads,
)
from wam.model.expert import Rotary, gated
from wam.model.rope import rotate

Adapted = tuple[Tensor, Tensor, Tensor]
"""Shift, scale and gate, each (B, G, D)."""


class CosmosModulation(NamedTuple):
    """The text that is read; and how self-attention, cross-attention and the MLP are adapted."""

    text: Tensor
    attention: Adapted
    text_attention: Adapted
    mlp: Adapted


class CosmosLayer(Layer):
    def modulation(self, told: Told) -> CosmosModulation:
        return CosmosModulation(
            text=told.prompt.text,
            attention=self._adapt(self.block.norm1, told),
            text_attention=self._adapt(self.block.norm2, told),
            mlp=self._adapt(self.block.norm3, told),
        )

    @staticmethod
    def _adapt(norm: Any, told: Told) -> Adapted:
        inner = norm.linear_2(norm.linear_1(norm.activation(told.embedded)))
        shift, scale, gate = (inner.unflatten(-1, (3, -1)) + told.projected).unbind(dim=2)
        return shift, scale, gate

    def qkv(self, h: Tensor, modulation: CosmosModulation, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        attention = self.block.attn1
        shift, scale, _ = modulation.attention
        x = normed(self.block.norm1.norm, h, shift, scale)
        q, k, v = (split_heads(to(x), attention.heads) for to in (attention.to_q, attention.to_k, attention.to_v))
        q, k = attention.norm_q(q), attention.norm_k(k)
        if rotary is not None:
            q, k = rotate(q.float(), rotary).type_as(q), rotate(k.float(), rotary).type_as(k)
        return q, k, v

    def update(self, h: Tensor, attended: Tensor, modulation: CosmosModulation) -> Tensor:
        block = self.block
        out, dropout = block.attn1.to_out
        h = self._add(h, dropout(out(join_heads(attended))), modulation.attention)
        shift, scale, _ = modulation.text_attention
        read = block.attn2(normed(block.norm2.norm, h, shift, scale), encoder_hidden_states=modulation.text)
        h = self._add(h, read, modulation.text_attention)
        shift, scale, _ = modulation.mlp
        return self._add(h, block.ff(normed(block.norm3.norm, h, shift, scale)), modulation.mlp)

    @staticmethod
    def _add(h: Tensor, update: Tensor, modulation: Adapted) -> Tensor:
        return gated(h.float(), update.float(), modulation[2].float()).type_as(h)


class CosmosEnds(Ends):
    blocks_at = "transformer_blocks"

    def embed(self, latents: Tensor, clocks: Tensor, prompt: Prompt) -> Tensor:
        config = self.network.config
        if config.in_channels > config.out_channels:
            given = (clocks == 0).to(latents.dtype)[:, None, :, None, None]
            latents = torch.cat([latents, given.expand(-1, 1, latents.shape[2], *latents.shape[3:])], dim=1)
        if config.concat_padding_mask:  # 0: the picture fills the frame
            latents = F.pad(latents, (0, 0, 0, 0, 0, 0, 0, 1))
        return self.network.patch_embed(latents).flatten(1, 3)

    def rotary(self, grid: Grid, *, start: int, device: torch.device) -> Rotary:
        frames, height, width = grid
        t, h, w = self.description.patch
        shape = torch.empty(1, 0, (start + frames) * t, height * h, width * w, device=device)
        cos, sin = self.network.rope(shape, fps=self.description.fps or None)
        return cos[start * height * width :], sin[start * height * width :]

    def tell(self, clocks: Tensor, prompt: Prompt, steering: Tensor | None = None) -> Told:
        time = self.network.time_embed
        dtype = time.t_embedder.linear_1.weight.dtype
        waves = sinusoids(time.time_proj, clocks, self.description.clock_scale, dtype)
        projected = time.t_embedder(waves).unflatten(-1, (3, -1))
        return Told(embedded=self.steered(time.norm(waves), steering), projected=projected, prompt=prompt)

    def read(self, features: Tensor, mask: Tensor, picture: Tensor | None = None) -> Prompt:
        text = self.padded(features, mask)[0]
        return Prompt(text=self.network.crossattn_proj(text) if self.network.config.use_crossattn_projection else text)

    def predict(self, h: Tensor, told: Told, grid: Grid) -> Tensor:
        norm = self.network.norm_out
        inner = norm.linear_2(norm.linear_1(norm.activation(told.embedded))).unflatten(-1, (2, -1))
        shift, scale = (inner + told.projected[:, :, :2]).unbind(dim=2)
        t, i, j = self.description.patch
        return rearrange(
            self.network.proj_out(normed(norm.norm, h, shift, scale)),
            "b (t h w) (i j p c) -> b c (t p) (h i) (w j)",
            t=grid[0],
            h=grid[1],
            p=t,
            i=i,
            j=j,
        )
