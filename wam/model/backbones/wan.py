"""Wan 2.1 and 2.2 (Wan team 2025), of diffusers' WanTransformer3DModel: text to video, image to video, both.

Wan2.1's image-to-video networks take the first frame in channels of their own and its picture features beside the text.
Here their own first frame too enters clean, at clock 0, as Wan2.2's does, where their pipeline draws it from noise again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from wam.contracts import expected
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

GUIDE_MASK = 4
"""Channels that say which frames the guide shows: one for each frame in a latent."""


class WanModulation(NamedTuple):
    """The text that is read; the rest each (B, G, D)."""

    text: Tensor
    shift: Tensor
    scale: Tensor
    gate: Tensor
    shift_mlp: Tensor
    scale_mlp: Tensor
    gate_mlp: Tensor


class WanLayer(Layer):
    def modulation(self, told: Told) -> WanModulation:
        parts = (self.block.scale_shift_table + told.projected.float()).unbind(dim=2)
        return WanModulation(told.prompt.text, *parts)

    def qkv(self, h: Tensor, modulation: WanModulation, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        attention = self.block.attn1
        x = normed(self.block.norm1, h, modulation.shift, modulation.scale)
        q, k = attention.norm_q(attention.to_q(x)), attention.norm_k(attention.to_k(x))
        q, k, v = (split_heads(part, attention.heads) for part in (q, k, attention.to_v(x)))
        return (q, k, v) if rotary is None else (rotate_pairs(q, rotary), rotate_pairs(k, rotary), v)

    def update(self, h: Tensor, attended: Tensor, modulation: WanModulation) -> Tensor:
        block = self.block
        out, dropout = block.attn1.to_out
        h = gated(h.float(), dropout(out(join_heads(attended))).float(), modulation.gate).type_as(h)
        h = h + block.attn2(block.norm2(h.float()).type_as(h), modulation.text, None, None)
        x = normed(block.norm3, h, modulation.shift_mlp, modulation.scale_mlp)
        return gated(h.float(), block.ffn(x).float(), modulation.gate_mlp).type_as(h)


class WanEnds(Ends):
    blocks_at = "blocks"

    def embed(self, latents: Tensor, clocks: Tensor, prompt: Prompt) -> Tensor:
        if self.description.guided:
            if prompt.guide is None:
                raise expected(
                    "latents of the first frame to guide an image-to-video network",
                    got="none",
                    do="give the prompt a guide",
                )
            shown = torch.zeros_like(latents[:, :GUIDE_MASK])
            shown[:, :, 0] = 1
            latents = torch.cat([latents, shown, prompt.guide.to(latents.dtype)], dim=1)
        return self.network.patch_embedding(latents).flatten(2).transpose(1, 2).contiguous()

    def rotary(self, grid: Grid, *, start: int, device: torch.device) -> Rotary:
        frames, height, width = grid
        t, h, w = self.description.patch
        longest = self.network.rope.max_seq_len
        if start + frames > longest or max(height, width) > longest:
            raise expected(f"at most {longest} tokens along each axis", got=grid, do="shorten the video or shrink it")
        shape = torch.empty(1, 0, (start + frames) * t, height * h, width * w, device=device)
        cos, sin = (x[:, start * height * width :].transpose(1, 2) for x in self.network.rope(shape))
        return cos, sin

    def tell(self, clocks: Tensor, prompt: Prompt, steering: Tensor | None = None) -> Told:
        time = self.network.condition_embedder
        dtype = time.time_embedder.linear_1.weight.dtype
        waves = sinusoids(time.timesteps_proj, clocks, self.description.clock_scale, dtype)
        embedded = self.steered(time.time_embedder(waves), steering)
        projected = time.time_proj(time.act_fn(embedded)).unflatten(-1, (6, -1))
        return Told(embedded=embedded, projected=projected, prompt=prompt)

    def read(self, features: Tensor, mask: Tensor, picture: Tensor | None = None) -> Prompt:
        text = self.network.condition_embedder.text_embedder(self.padded(features, mask)[0])
        if not self.description.image_width:
            return Prompt(text=text)
        if picture is None:
            raise expected("picture features for an image-to-video network", got="none", do="encode the first frame")
        return Prompt(text=torch.cat([self.network.condition_embedder.image_embedder(picture), text], dim=1))

    def predict(self, h: Tensor, told: Told, grid: Grid) -> Tensor:
        table = self.network.scale_shift_table  # (1, 2, D)
        shift, scale = (table + told.embedded[:, :, None]).unbind(dim=2)
        t, i, j = self.description.patch
        return rearrange(
            self.network.proj_out(normed(self.network.norm_out, h, shift, scale)),
            "b (t h w) (p i j c) -> b c (t p) (h i) (w j)",
            t=grid[0],
            h=grid[1],
            p=t,
            i=i,
            j=j,
        )
