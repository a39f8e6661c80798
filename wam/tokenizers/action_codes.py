"""Batches of action chunks as rows of integers, for a loss that teaches a network to say them one after another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wam.contracts import expected
from wam.tokenizers.action import BinTokenizer, FastTokenizer


@dataclass(kw_only=True)
class ActionTokenConfig:
    """Discrete action tokens beside the flow, in training alone (pi0.5 with knowledge insulation, Driess et al. 2025).

    kind: `bins`, one for each number of the chunk; `fast`, a few for each chunk, by merges fitted to the training data or
    those of `file`. loss_weight: of their cross-entropy. bins: how many; vocabulary, scale, reach: FAST's.
    """

    kind: Literal["none", "bins", "fast"] = "none"
    loss_weight: float = 1.0
    bins: int = 128
    vocabulary: int = 1024
    scale: float = 10.0
    reach: int = 255
    file: str = ""

    def validate(self) -> None:
        if self.kind not in ("none", "bins", "fast") or self.loss_weight <= 0:
            raise expected(
                "action_tokens.kind none, bins or fast and a loss_weight above 0",
                got=f"{self.kind} and {self.loss_weight}",
                do="mend `model.action_tokens`",
            )
        if self.kind == "bins" and self.bins < 2:
            raise expected("at least 2 bins", got=self.bins, do="set `model.action_tokens.bins`")

    @property
    def codes(self) -> int:
        """How many different tokens there are."""
        return self.bins if self.kind == "bins" else self.vocabulary


class ActionCodes:
    """Normalised chunks (B, K, A), whose 1st and 99th percentiles are -1 and 1, to codes and back."""

    def __init__(self, config: ActionTokenConfig, *, chunk: int, dim: int) -> None:
        config.validate()
        self.config, self.chunk, self.dim = config, chunk, dim
        self.fast: FastTokenizer | None = None
        self.bins = BinTokenizer([-1.0] * dim, [1.0] * dim, bins=max(2, config.bins))
        if config.kind == "fast" and config.file:
            self.fast = FastTokenizer.load(Path(config.file))
            self._check(self.fast)

    @property
    def fitted(self) -> bool:
        """Is it ready? FAST's merges come from data."""
        return self.config.kind != "fast" or self.fast is not None

    def fit(self, chunks: np.ndarray) -> None:
        """Merges for chunks like these (N, K, A), normalised. Bins need none."""
        if self.config.kind == "fast":
            c = self.config
            self.fast = FastTokenizer.fit(chunks, vocabulary=c.vocabulary, scale=c.scale, reach=c.reach)

    def encode(self, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """action (B, K, A), mask (B, K) bool of real steps -> codes (B, L) long and which of them are known (B, L) bool.

        A bin is known where its step is real; FAST joins all steps, and knows whole chunks alone.
        """
        device = action.device
        mask = torch.ones(action.shape[:2], dtype=torch.bool, device=device) if mask is None else mask
        if action.is_meta:  # as many as there are numbers: of a count by shapes
            return action.flatten(1).long(), mask.repeat_interleave(self.dim, 1)
        numbers = action.detach().float().cpu().numpy()
        if self.config.kind == "bins":
            codes = torch.from_numpy(self.bins.encode(numbers)).flatten(1)
            return codes.to(device), mask.repeat_interleave(self.dim, 1)
        if self.fast is None:
            raise expected(
                "merges for FAST action tokens", got="none", do="fit them to chunks, or set `model.action_tokens.file`"
            )
        rows = [self.fast.encode(row) for row in numbers]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        codes = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
        known = torch.arange(codes.shape[1], device=device) < lengths[:, None]
        return codes, known & mask.all(1, keepdim=True)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (L,) of one chunk -> the chunk (K, A), normalised."""
        if self.fast is not None:
            return torch.from_numpy(self.fast.decode(codes.tolist()))
        return torch.from_numpy(self.bins.decode(codes.reshape(self.chunk, self.dim).cpu().numpy()))

    def save(self, path: Path) -> None:
        """Write the tokenizer, of normalised chunks, as JSON."""
        (self.fast or self.bins).save(path)

    def _check(self, fast: FastTokenizer) -> None:
        if (fast.chunk, fast.scaler.dim) != (self.chunk, self.dim) or fast.vocabulary > self.config.vocabulary:
            raise expected(
                f"a tokenizer of chunks of {self.chunk} x {self.dim} with at most {self.config.vocabulary} codes",
                got=f"one of {fast.chunk} x {fast.scaler.dim} with {fast.vocabulary}",
                do="name another `model.action_tokens.file`, or fit one by leaving it out",
            )
