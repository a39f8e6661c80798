"""What a model knows about an observation before it denoises anything: computed once, read at every step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from wam.model.backbones.interface import Prompt
from wam.model.joint import StreamCache


@dataclass(frozen=True, kw_only=True)
class Context:
    """caches: keys and values of the context streams. summaries: (B, 1, condition width) by stream, for modulation.
    prompts: what a pretrained stream's own cross-attention reads. present: latents of the last observed frame
    (B, V, 1, h, w, c). view_mask (B, V) bool, where some cameras are missing.
    time: index of the present, in dataset frames."""

    size: int
    caches: dict[str, StreamCache] = field(default_factory=dict)
    summaries: dict[str, Tensor] = field(default_factory=dict)
    prompts: dict[str, Prompt] = field(default_factory=dict)
    present: Tensor
    view_mask: Tensor | None = None
    embodiment: Tensor | None = None
    time: int = 0

    def take(self, rows: Tensor) -> Context:
        """The rows of these indices (N,)."""
        return replace(
            self,
            size=len(rows),
            caches={s: cache.take(rows) for s, cache in self.caches.items()},
            summaries={s: x[rows] for s, x in self.summaries.items()},
            prompts={s: prompt.take(rows) for s, prompt in self.prompts.items()},
            present=self.present[rows],
            view_mask=None if self.view_mask is None else self.view_mask[rows],
            embodiment=None if self.embodiment is None else self.embodiment[rows],
        )

    def expand(self, repeats: int) -> Context:
        """Every row `repeats` times in a row: several samples per observation at the price of one context."""
        if repeats == 1:
            return self
        return replace(
            self,
            size=self.size * repeats,
            caches={s: cache.expand(repeats) for s, cache in self.caches.items()},
            summaries={s: x.repeat_interleave(repeats, 0) for s, x in self.summaries.items()},
            prompts={s: prompt.expand(repeats) for s, prompt in self.prompts.items()},
            present=self.present.repeat_interleave(repeats, 0),
            view_mask=None if self.view_mask is None else self.view_mask.repeat_interleave(repeats, 0),
            embodiment=None if self.embodiment is None else self.embodiment.repeat_interleave(repeats, 0),
        )
