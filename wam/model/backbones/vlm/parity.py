"""Is the wrapped vision-language model the original? The same pictures and words through both, padding too.

The original is transformers' own forward pass of a network of the same weights; the wrapped one runs its layers as the
experts of a lone stream.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from wam.model.backbones.vlm.catalogue import LAYOUTS, PALIGEMMA
from wam.model.backbones.vlm.decoder import take_apart
from wam.model.backbones.vlm.load import VlmBackbone
from wam.model.backbones.vlm.scene import SceneEnds
from wam.model.joint import JointTransformer
from wam.model.visibility import VisibilityTable

ALONE = VisibilityTable(sees={"observation": {"observation": "yes"}})


@dataclass(frozen=True, kw_only=True)
class Example:
    """images (B, V, T, H, W, 3) in [0, 1], of the size that the network takes, and a sentence of each row; codes (B, L) and
    known (B, L) bool: action tokens that go on from them."""

    images: Tensor
    sentences: tuple[str, ...]
    codes: Tensor
    known: Tensor


def draw_example(backbone: VlmBackbone, *, views: int, times: int, lengths: tuple[int, ...], seed: int = 0) -> Example:
    """Noise, and sentences of random letters, of so many each; as many action tokens as there are letters."""
    g = torch.Generator().manual_seed(seed)
    side, size = backbone.description.picture, len(lengths)
    letters = torch.randint(97, 123, (size, max(lengths)), generator=g)
    longest = max(1, *lengths)
    return Example(
        images=torch.rand(size, views, times, side, side, 3, generator=g),
        sentences=tuple(bytes(row[:n].tolist()).decode() for row, n in zip(letters, lengths, strict=True)),
        codes=torch.randint(0, 16, (size, longest), generator=g),
        known=torch.arange(longest) < torch.tensor(lengths)[:, None].clamp_min(1),
    )


class Wrapped(nn.Module):
    """A vision-language model taken apart, as the lone stream of a joint transformer."""

    def __init__(self, backbone: VlmBackbone, *, views: int, tokens: int = 64) -> None:
        super().__init__()
        known = backbone.description
        ends, layers = take_apart(backbone)
        self.ends = SceneEnds(ends, backbone.words, views=views, tokens=tokens)
        self.transformer = JointTransformer(
            widths={},
            depth=known.layers,
            heads=known.heads,
            head_dim=known.head_dim,
            condition_width=1,
            mlp_ratios={},
            pretrained={"observation": layers},
        )

    def forward(self, example: Example) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The prompt's last hidden states (B, L, D) and which of them are there (B, L); the same of its action tokens."""
        given = self.ends.look(example.images, example.sentences).input
        out, caches = self.transformer({"observation": given}, ALONE, keep_cache=True)
        said = self.ends.say(example.codes, example.known, caches["observation"])
        later, _ = self.transformer({"observation": said}, ALONE, context=caches)
        assert given.there is not None
        assert said.there is not None
        hidden = self.ends.ends.hidden
        return hidden(out["observation"]), given.there, hidden(later["observation"]), said.there


@torch.no_grad()
def original_forward(backbone: VlmBackbone, example: Example, *, rows: slice = slice(None)) -> list[Tensor]:
    """transformers' own last hidden states (L, D) of these rows, padded on the right to the longest of them, each cut to what
    it holds. The backbone must not have been taken apart."""
    network: Any = backbone.network
    told = [_ids(backbone, example, row) for row in range(len(example.sentences))[rows]]
    longest = max(len(prompt) + len(said) for prompt, said in told)
    ids, suffix, there = (torch.zeros(len(told), longest, dtype=torch.long) for _ in range(3))
    for row, (prompt, said) in enumerate(told):
        ids[row, : len(prompt + said)] = torch.tensor(prompt + said)
        suffix[row, len(prompt) : len(prompt + said)] = 1
        there[row, : len(prompt + said)] = 1
    pixels = rearrange(example.images[rows] * 2 - 1, "b v t h w c -> b (t v) c h w")
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": there}
    if type(network).__name__ == PALIGEMMA:
        given |= {"pixel_values": pixels.flatten(0, 1), "token_type_ids": suffix}
    else:
        given |= {"pixel_values": pixels}
    hidden = network.model(**given).last_hidden_state
    return [h[mask.bool()] for h, mask in zip(hidden, there, strict=True)]


def _ids(backbone: VlmBackbone, example: Example, row: int) -> tuple[list[int], list[int]]:
    """The ids of a row's prompt, with the original's own for pictures, and of its action tokens."""
    known, layout, words = backbone.description, LAYOUTS[backbone.description.family], backbone.words.ids
    network: Any = backbone.network
    picture = words(layout.opened) + [network.config.image_token_id] * known.picture_tokens + words(layout.closed)
    _, views, times = example.images.shape[:3]
    asked = words(layout.asked) + words(example.sentences[row]) + words(layout.after)
    last = known.vocabulary - 1 - layout.reserved
    said = words(layout.acting) + [last - int(code) for code in example.codes[row][example.known[row]]]
    return words(layout.before) + picture * (views * times) + asked, said


@torch.no_grad()
def difference(backbone: VlmBackbone, example: Example) -> float:
    """Largest absolute difference of the last hidden states, rows padded together and each by itself; a copy of the
    backbone is taken apart."""
    padded = original_forward(backbone, example)
    alone = [original_forward(backbone, example, rows=slice(r, r + 1))[0] for r in range(len(example.sentences))]
    prompt, there, said, known = Wrapped(copy.deepcopy(backbone), views=example.images.shape[1]).eval()(example)
    found = [torch.cat([p[m], s[n]]) for p, m, s, n in zip(prompt, there, said, known, strict=True)]
    assert [len(h) for h in found] == [len(h) for h in alone]
    return max(
        float((h - other).abs().max()) for h, *others in zip(found, padded, alone, strict=True) for other in others
    )
