"""The attention kernel, by name. All give the same result within rounding; they differ in speed and in where they run."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from wam.contracts import expected

KERNELS = ("auto", "sdpa", "explicit")


def attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, kernel: str = "auto") -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v. q (B, N, L, head_dim), k and v (B, N, L', head_dim), mask (L, L') bool.

    `auto` takes SDPA, save for bfloat16 training on a CPU, where SDPA's backward pass is slower
    than the three operations written out.
    """
    if kernel not in KERNELS:
        raise expected(f"an attention kernel among {', '.join(KERNELS)}", got=repr(kernel), do="name one of them")
    if kernel == "auto":
        learning = torch.is_grad_enabled() and q.requires_grad
        kernel = "explicit" if q.device.type == "cpu" and q.dtype == torch.bfloat16 and learning else "sdpa"
    if kernel == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).to(v.dtype) @ v
