"""A text encoder's answers to known sentences, in its place: what training needs of it when all its sentences are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wam.contracts import expected
from wam.tokenizers.text import TextEncoder


class RememberedText(TextEncoder):
    """features: (L, D) of every sentence it will be asked for, as the encoder of this provenance gave them.

    They are no part of a checkpoint, which names the encoder itself. Another sentence raises WamError.
    """

    def __init__(self, features: Mapping[str, Tensor], *, provenance: Mapping[str, Any]) -> None:
        super().__init__()
        self._features = dict(features)
        self.width = next(iter(self._features.values())).shape[-1]
        self.provenance = dict(provenance)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> RememberedText:
        super()._apply(fn, recurse)
        self._features = {sentence: fn(value) for sentence, value in self._features.items()}
        return self

    def encode(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        if unknown := [sentence for sentence in sentences if sentence not in self._features]:
            raise expected(
                f"one of the {len(self._features)} sentences whose features were made before",
                got=repr(unknown[0]),
                do="make the features of the new sentences (wam data cache), or train with data.latents=",
            )
        rows = [self._features[sentence] for sentence in sentences]
        features = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=features.device)
        return features, torch.arange(features.shape[1], device=features.device) < lengths[:, None]
