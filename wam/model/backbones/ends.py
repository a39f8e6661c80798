"""A pretrained network's ends as those of a video stream: (B, V, T, h, w, c) signals in, predictions of the same shape out.

Views stand side by side in one picture, as in Fast-WAM and DreamZero. What steers the stream beside its clock (summaries of
actions, state and text: the `modulated_by` edges) is added to the time embedding by a map that is zero at the start, so
that an untrained model draws what the original would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.model.backbones.interface import Ends, Grid, Prompt, Told
from wam.model.backbones.picture import PictureReader
from wam.model.joint import StreamInput
from wam.model.latents import FrameCoder, signed
from wam.tokenizers.text import TextEncoder


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A signal on its way through the layers: what goes in, and what the output head needs to know."""

    input: StreamInput
    told: Told
    grid: Grid

    @property
    def frames(self) -> Tensor:
        """The tokens that go in, (B, T, L, D)."""
        return self.input.h.unflatten(1, (self.grid[0], -1))


class PretrainedEnds(nn.Module):
    """leads: the present, clean, comes before the signal in the stream's own sequence; else another stream that runs through
    the same layers holds it. owner: the weights are saved and moved with this module; else with that of another stream."""

    def __init__(
        self,
        ends: Ends,
        *,
        views: int,
        condition_width: int,
        leads: bool,
        owner: bool = True,
        picture: PictureReader | None = None,
    ) -> None:
        super().__init__()
        if owner:
            self.pretrained = ends
        self._ends = (ends,)  # in a tuple: a module that another stream owns is no submodule here
        self.views, self.leads, self.picture = views, leads, picture
        self.steer = nn.Linear(condition_width, ends.description.width)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    @property
    def ends(self) -> Ends:
        return self._ends[0]

    def tokens(self, side: int) -> int:
        """Of a frame of latents side x side in each view."""
        _, h, w = self.ends.description.patch
        return side // h * (self.views * side // w)

    def read(
        self,
        encoder: TextEncoder,
        sentences: Sequence[str],
        images: Tensor,
        *,
        coder: FrameCoder,
    ) -> Prompt:
        """What cross-attention reads of sentences and of the newest of observed frames (B, V, T, H, W, C)."""
        features, mask = encoder(sentences)
        present, future = signed(images[:, :, -1:]), len(coder.config.future)
        return self.prompt(features, mask, present=present, future=future, encode=coder.video_tokenizer.encode)

    def prompt(
        self,
        features: Tensor,
        mask: Tensor,
        *,
        present: Tensor,
        future: int,
        encode: Callable[[Tensor], Tensor],
    ) -> Prompt:
        """What is read beside the tokens: text features (B, L, text_width) with mask (B, L), and of the present frame
        (B, V, 1, H, W, 3) in [-1, 1] what the network takes. future: frames to come; encode: frames to latents."""
        known = self.ends.description
        picture = None
        if self.picture is not None:
            picture = self.picture(rearrange(present[:, :, 0], "b v h w c -> b h (v w) c"))
        prompt = self.ends.read(features, mask, picture)
        if not known.guided:
            return prompt
        grey = present.new_zeros(*present.shape[:2], future, *present.shape[3:])
        return replace(prompt, guide=self._beside(encode(torch.cat([present, grey], dim=2))))

    def embed(
        self,
        signal: Tensor,
        condition: Tensor,
        *,
        clock: Tensor,
        prompt: Prompt,
        present: Tensor | None = None,
        start: int = 0,
    ) -> Passage:
        """signal (B, V, T, h, w, c) at clock (B,) or (B, T). condition (B, 1 or T, condition width) steers. present
        (B, V, 1, h, w, c); start: the signal's first place in time, after frames that another stream holds."""
        latents = self._beside(signal)
        clocks = clock[:, None] if clock.ndim == 1 else clock
        steering = self.steer(F.silu(condition))
        if self.leads:
            assert present is not None
            latents = torch.cat([self._beside(present).to(latents.dtype), latents], dim=2)
            times = signal.shape[2]
            clocks = F.pad(clocks.expand(-1, times), (1, 0))  # 0: the present is given
            if steering.shape[1] > 1:
                steering = torch.cat([steering[:, :1], steering], dim=1)
        ends, grid = self.ends, self.ends.grid(latents)
        told = ends.tell(clocks, prompt, steering)
        h = ends.embed(latents, clocks.expand(-1, latents.shape[2]), prompt)
        rotary = ends.rotary(grid, start=start, device=h.device)
        return Passage(input=StreamInput(h=h, condition=told, rotary=rotary, frames=grid[0]), told=told, grid=grid)

    def predict(self, h: Tensor, passage: Passage) -> Tensor:
        """Tokens after the last layer -> velocity (B, V, T, h, w, c) of the signal."""
        drawn = self.ends.predict(h, passage.told, passage.grid)[:, :, int(self.leads) :]
        return rearrange(drawn, "b c t h (v w) -> b v t h w c", v=self.views).float()

    def _beside(self, signal: Tensor) -> Tensor:
        return rearrange(signal, "b v t h w c -> b c t h (v w)")
