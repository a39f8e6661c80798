"""Latent actions as labels: a frozen tokenizer reads off each window what happens between its present and its future."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from wam.contracts import Batch, expected
from wam.model.config import ModelConfig
from wam.tokenizers.latent_action import LatentActionTokenizer
from wam.training.state import newest_checkpoint


class LatentLabels:
    """Gives batches their `latent_action`.

    offsets: the future frames it looks at, 1, 2, ... times the tokenizer's gap after the present. length, dim: K and A.
    """

    def __init__(self, folder: str | Path, model: ModelConfig) -> None:
        self.tokenizer = LatentActionTokenizer.from_pretrained(newest_checkpoint(Path(folder)))
        if self.tokenizer.provenance.get("random"):
            raise expected(
                f"a trained tokenizer in {folder}", got="random weights", do="train it with stage=latent-action"
            )
        own = self.tokenizer.config
        self.offsets: list[int] = []
        while own.gap * (len(self.offsets) + 1) in model.future:
            self.offsets.append(own.gap * (len(self.offsets) + 1))
        if not self.offsets:
            raise expected(
                f"a future frame {own.gap} frames after the present, as the tokenizer in {folder} was trained",
                got=f"model.future={list(model.future)}",
                do=f"set model.future=[{own.gap // 2},{own.gap}], or train a tokenizer with "
                f"latent_action.gap={model.future[-1]}",
            )
        if own.image_size != model.image_size:
            raise expected(
                f"frames of {own.image_size}, as the tokenizer in {folder} was trained",
                got=model.image_size,
                do="set model.image_size",
            )
        self._places = [list(model.future).index(offset) for offset in self.offsets]
        self.length, self.dim = len(self.offsets) * own.tokens, self.tokenizer.quantizer.dim
        nn.Module.requires_grad_(self.tokenizer, False)

    @torch.no_grad()
    def label(self, batch: Batch) -> Batch:
        """The batch with latent_action (B, K, A), and where it is known: where the window's future is."""
        if batch.future is None:
            raise expected("windows with a future", got="none", do="set model.future")
        frames = torch.cat([batch.images[:, :, -1:], batch.future[:, :, self._places]], dim=2)
        self.tokenizer.to(frames.device)
        found = self.tokenizer.encode(frames, view_mask=batch.view_mask)
        there = torch.ones(frames.shape[0], len(self.offsets), dtype=torch.bool, device=frames.device)
        if batch.future_mask is not None:
            there = batch.future_mask[:, self._places].cumprod(dim=1).bool()
        return batch.replace(
            latent_action=found.latents.float(),
            latent_action_mask=there.repeat_interleave(self.tokenizer.config.tokens, dim=1),
        )
