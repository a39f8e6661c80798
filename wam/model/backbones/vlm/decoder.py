"""A vision-language model taken apart: decoder layers as experts, and what makes tokens of pictures and words before them.

Llama's and Gemma's layers have the same parts under the same names, so that one expert holds both. Keys and values of fewer
heads than the queries (grouped heads) are repeated, since attention joins streams that have one for each.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam.model.backbones.interface import Layer, join_heads, split_heads
from wam.model.backbones.vlm.load import VlmBackbone, VlmDescription, language_of
from wam.model.expert import Rotary
from wam.model.rope import rotate


class DecoderLayer(Layer):
    """Llama's or Gemma's. It has no clock: what it is told is nothing."""

    def modulation(self, told: Any) -> None:
        return None

    def qkv(self, h: Tensor, modulation: Any, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        attention = self.block.self_attn
        x = self.block.input_layernorm(h)
        groups = attention.num_key_value_groups
        heads = attention.config.num_attention_heads
        q = split_heads(attention.q_proj(x), heads)
        k, v = (split_heads(part(x), heads // groups) for part in (attention.k_proj, attention.v_proj))
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)

    def update(self, h: Tensor, attended: Tensor, modulation: Any) -> Tensor:
        block = self.block
        h = h + block.self_attn.o_proj(join_heads(attended))
        return h + block.mlp(block.post_attention_layernorm(h))


class LanguageEnds(nn.Module, abc.ABC):
    """The original without its decoder layers. `network` is the transformers module; a head that has the embedding's weight is
    left out of it until it is put together again."""

    blocks_at: ClassVar[str]

    def __init__(self, network: Any, description: VlmDescription) -> None:
        super().__init__()
        self.network: Any = network
        self.description = description
        self.tied = self.network.lm_head.weight is self.language.embed_tokens.weight
        if self.tied:
            self.network.lm_head = None

    @property
    def language(self) -> Any:
        return language_of(self.network)

    @abc.abstractmethod
    def pictures(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, side, side) in [-1, 1] -> tokens (B, M, D)."""

    def words(self, ids: Tensor) -> Tensor:
        """ids (B, L) -> tokens (B, L, D); ids beyond the vocabulary, which stand for pictures, as that of id 0."""
        return self.language.embed_tokens(ids.masked_fill(ids >= self.description.vocabulary, 0))

    def rotary(self, positions: Tensor) -> Rotary:
        """The original's rotations of tokens at positions (B, L), counted from 0: cos and sin (B, 1, L, head_dim)."""
        like = torch.empty(0, device=positions.device)
        cos, sin = self.language.rotary_emb(like, position_ids=positions + self.description.first)
        return cos[:, None], sin[:, None]

    def hidden(self, h: Tensor) -> Tensor:
        """Tokens after the last layer -> what the original calls its last hidden state."""
        return self.language.norm(h)

    def logits(self, h: Tensor, ids: slice = slice(None)) -> Tensor:
        """Tokens (B, L, D) after the last layer -> (B, L, vocabulary), or of a range of ids alone."""
        weight = self.language.embed_tokens.weight if self.tied else self.network.lm_head.weight
        return F.linear(self.hidden(h), weight[ids])


class SmolVlmEnds(LanguageEnds):
    blocks_at = "model.text_model.layers"

    def pictures(self, pixels: Tensor) -> Tensor:
        vision, connector = self.network.model.vision_model, self.network.model.connector
        size, side = len(pixels), vision.config.image_size // vision.config.patch_size
        whole = torch.ones(size, side, side, dtype=torch.bool, device=pixels.device)  # no part of a picture is padding
        h = vision.embeddings(pixel_values=pixels, patch_attention_mask=whole)
        h = vision.encoder(inputs_embeds=h, attention_mask=None).last_hidden_state
        return connector(vision.post_layernorm(h))


class PaliGemmaEnds(LanguageEnds):
    blocks_at = "model.language_model.layers"

    def pictures(self, pixels: Tensor) -> Tensor:
        model = self.network.model
        return model.multi_modal_projector(model.vision_tower(pixels).last_hidden_state)


_FAMILIES: dict[str, type[LanguageEnds]] = {"smolvlm": SmolVlmEnds, "paligemma": PaliGemmaEnds}


def take_apart(backbone: VlmBackbone) -> tuple[LanguageEnds, list[Layer]]:
    """The ends and layers of a vision-language model, whose network has no layers from then on."""
    language = language_of(backbone.network)
    layers: list[Layer] = [DecoderLayer(block) for block in cast(Sequence[nn.Module], language.layers)]
    language.layers = nn.ModuleList()
    return _FAMILIES[backbone.description.family](backbone.network, backbone.description), layers


def put_together(ends: LanguageEnds, layers: Iterable[Layer]) -> nn.Module:
    """The transformers network again, for use by transformers; it shares its weights with the ends and layers."""
    network, language = ends.network, ends.language
    language.layers = nn.ModuleList(layer.block for layer in layers)
    if ends.tied:
        network.lm_head = nn.Linear(1, 1, bias=False, device="meta")
        network.lm_head.weight = language.embed_tokens.weight
    return network


def original_names(ends: LanguageEnds, layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Every weight of the ends and layers by its name in the transformers network's state."""
    found = dict(ends.network.state_dict())
    if ends.tied:
        found["lm_head.weight"] = ends.language.embed_tokens.weight
    for number, layer in enumerate(layers):
        found |= {f"{ends.blocks_at}.{number}.{name}": value for name, value in layer.block.state_dict().items()}
    return found
