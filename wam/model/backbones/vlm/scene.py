"""What is seen and what is asked as one sequence of a vision-language model: pictures in a prompt, the sentence after them.

As in pi0 and SmolVLA the sequence is context: nothing noisy reaches it, so that it runs once per observation, and experts of
the other streams read its keys and values layer by layer. A sentence's end is padding that nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.model.backbones.vlm.catalogue import LAYOUTS
from wam.model.backbones.vlm.decoder import LanguageEnds
from wam.model.backbones.vlm.words import Words
from wam.model.joint import StreamCache, StreamInput
from wam.model.latents import signed
from wam.model.masks import sentence_mask


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A prompt at the layers' door, and its newest pictures' tokens (B, V * M, D)."""

    input: StreamInput
    pictures: Tensor


class SceneEnds(nn.Module):
    """The ends of a vision-language stream. tokens: of a sentence, at most."""

    def __init__(self, ends: LanguageEnds, words: Words, *, views: int, tokens: int) -> None:
        super().__init__()
        self.pretrained = ends
        self.vocabulary, self.views, self.limit = words, views, tokens
        self.layout = LAYOUTS[ends.description.family]

    @property
    def ends(self) -> LanguageEnds:
        return self.pretrained

    @property
    def picture_tokens(self) -> int:
        """Of one time's pictures."""
        return self.views * self.ends.description.picture_tokens

    def look(self, images: Tensor, sentences: Sequence[str], view_mask: Tensor | None = None) -> Scene:
        """images (B, V, T, H, W, 3), uint8 or in [0, 1], times in order, and a sentence of each row. view_mask (B, V) bool:
        cameras that a row has; pictures of others are there for nobody."""
        shown, V = self._pictures(signed(images)), self.views
        T, device = images.shape[2], images.device
        prompt, places = self._prompt(T * V)
        rows = [prompt + self._asked(sentence) for sentence in sentences]
        length = max(map(len, rows))
        there = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows], device=device)
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=device)
        h = self.ends.words(ids)
        held = torch.tensor([i for start, stop in places for i in range(start, stop)], device=device)
        h = h.index_copy(1, held, shown.to(h.dtype))
        if view_mask is not None:
            shown = shown * view_mask.repeat_interleave(shown.shape[1] // (T * V), 1).repeat(1, T)[..., None]
            seen = torch.ones_like(there)
            for number, (start, stop) in enumerate(places):
                around = slice(start - len(self._ids(self.layout.opened)), stop + len(self._ids(self.layout.closed)))
                seen[:, around] = view_mask[:, number % V, None]
            there = there & seen
        positions = torch.arange(length, device=device)[None]
        given = StreamInput(
            h=h,
            condition=None,
            rotary=self.ends.rotary(positions),
            own=sentence_mask(there, causal=self.ends.description.causal),
            there=there,
        )
        return Scene(input=given, pictures=shown[:, -self.picture_tokens :])

    def _pictures(self, images: Tensor) -> Tensor:
        """(B, V, T, H, W, 3) -> tokens (B, T * V * M, D)."""
        side = self.ends.description.picture
        pixels = rearrange(images, "b v t h w c -> (b t v) c h w")
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)
        return rearrange(self.ends.pictures(pixels), "(b n) m d -> b (n m) d", b=len(images))

    def _prompt(self, pictures: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids up to the sentence, those of pictures 0, and from where to where each picture's tokens stand."""
        layout, count = self.layout, self.ends.description.picture_tokens
        ids, places = self._ids(layout.before), []
        for _ in range(pictures):
            ids = ids + self._ids(layout.opened)
            places.append((len(ids), len(ids) + count))
            ids = ids + [0] * count + self._ids(layout.closed)
        return ids, places

    def _asked(self, sentence: str) -> list[int]:
        return self._ids(self.layout.asked) + self._ids(sentence)[: self.limit] + self._ids(self.layout.after)

    def _ids(self, text: str) -> list[int]:
        return self.vocabulary.ids(text) if text else []

    # action tokens ----------------------------------------------------------------------------------------------

    @property
    def codes(self) -> int:
        """How many action tokens the vocabulary has room for: half of it, where words are rare."""
        return (self.ends.description.vocabulary - self.layout.reserved) // 2

    def say(self, codes: Tensor, known: Tensor, cache: StreamCache) -> StreamInput:
        """Action tokens that go on from a prompt: codes (B, L) from 0, known (B, L) bool, cache of the prompt. What is told
        first is that actions follow; a token reads the prompt and those before it."""
        opening = torch.tensor(self._ids(self.layout.acting), device=codes.device).expand(len(codes), -1)
        last = self.ends.description.vocabulary - 1 - self.layout.reserved
        ids = torch.cat([opening, last - codes.masked_fill(~known, 0)], dim=1)
        there = torch.cat([torch.ones_like(opening, dtype=torch.bool), known], dim=1)
        assert cache.there is not None
        ends_at = (torch.arange(cache.there.shape[1], device=codes.device) * cache.there).amax(1) + 1
        positions = ends_at[:, None] + torch.arange(ids.shape[1], device=codes.device)
        return StreamInput(
            h=self.ends.words(ids),
            condition=None,
            rotary=self.ends.rotary(positions),
            own=sentence_mask(there, causal=True),
            there=there,
        )

    def said(self, h: Tensor, length: int, codes: int) -> Tensor:
        """Tokens (B, ..., D) of `say` after the last layer -> logits (B, length, codes) of each action token."""
        stop = self.ends.description.vocabulary - self.layout.reserved
        return self.ends.logits(h[:, -length - 1 : -1], slice(stop - codes, stop)).flip(-1)
