"""Which keys a token may read, where it may not read all of them: frames before it, and what is not padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def causal_mask(frames: int, past_frames: int, tokens: int, *, window: int | None, device: torch.device) -> Tensor:
    """(frames * tokens, (past_frames + frames) * tokens) bool: a frame reads itself and the `window - 1` before it."""
    reader = torch.arange(past_frames, past_frames + frames, device=device)[:, None]
    source = torch.arange(past_frames + frames, device=device)[None]
    allowed = source <= reader
    if window is not None:
        allowed &= source > reader - window
    return allowed.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)


def sentence_mask(there: Tensor, *, causal: bool) -> Tensor:
    """there (B, L) bool -> (B, L, L) bool: a token reads what is there, of it only what comes before where `causal`.

    Each reads itself too, so that what is padding has something to read and stays finite.
    """
    length = there.shape[1]
    itself = torch.eye(length, dtype=torch.bool, device=there.device)
    allowed = there[:, None].expand(-1, length, -1)
    if causal:
        allowed = allowed & torch.ones(length, length, dtype=torch.bool, device=there.device).tril()
    return allowed | itself


def whole_mask(
    parts: Sequence[Tensor | None], lengths: Sequence[int], mask: Tensor | None, *, device: torch.device
) -> Tensor:
    """Masks of neighbouring keys as one, (B, 1, L or 1, L').

    parts: each (B or 1, L or 1, length), None where all are readable. mask (L, L'') bool: of the last L'' keys besides.
    """
    given = [part for part in parts if part is not None]
    size, rows = max(part.shape[0] for part in given), max(part.shape[1] for part in given)
    every = torch.ones(1, 1, 1, dtype=torch.bool, device=device)
    whole = torch.cat(
        [(every if p is None else p).expand(size, rows, n) for p, n in zip(parts, lengths, strict=True)], dim=2
    )
    if mask is not None:
        whole = whole & F.pad(mask, (whole.shape[2] - mask.shape[1], 0), value=True)
    return whole[:, None]
