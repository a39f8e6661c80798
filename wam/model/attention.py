"""The attention kernel, by name. All give the same result within rounding; they differ in speed and in where they run.

| name | what runs |
|---|---|
| `auto` | `sdpa`, save for bfloat16 training on a CPU, where the three operations written out are faster |
| `sdpa` | torch's scaled_dot_product_attention, which picks a kernel |
| `flash` | its FlashAttention kernel alone (Dao 2023), or an error |
| `xformers` | xformers' memory-efficient attention |
| `flex` | torch's flex_attention, compiled on a GPU |
| `explicit` | the three operations written out |
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from wam.contracts import WamError, expected

KERNELS = ("auto", "sdpa", "flash", "xformers", "flex", "explicit")


def check_kernel(kernel: str) -> None:
    """Raises WamError for a kernel of no known name, or whose package is not on this machine."""
    if kernel not in KERNELS:
        raise expected(f"an attention kernel among {', '.join(KERNELS)}", got=repr(kernel), do="name one of them")
    if kernel == "xformers" and importlib.util.find_spec("xformers") is None:
        raise expected(
            "the package xformers for model.attention=xformers",
            got="none",
            do="install it with pip install 'wam[xformers]', or set model.attention=sdpa",
        )


def attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, kernel: str = "auto") -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v. q (B, N, L, head_dim), k and v (B, N, L', head_dim), mask (L, L') bool, or
    (B, 1, L or 1, L') where rows differ.

    Raises WamError where the kernel does not run on this machine, or on tensors like these.
    """
    check_kernel(kernel)
    if kernel == "auto":
        learning = torch.is_grad_enabled() and q.requires_grad
        kernel = "explicit" if q.device.type == "cpu" and q.dtype == torch.bfloat16 and learning else "sdpa"
    if kernel == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if kernel == "explicit":
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1).to(v.dtype) @ v
    run = {"flash": _flash, "xformers": _xformers, "flex": _flex}[kernel]
    try:
        return run(*alike(q, k, v), mask)
    except (RuntimeError, NotImplementedError, ValueError, ImportError) as error:
        raise _does_not_run(kernel, q, mask, error) from error


def alike(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In one precision: norms give float32 queries and keys where maps give bfloat16 values under autocast."""
    kind = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    if not q.is_meta and torch.is_autocast_enabled(q.device.type):
        kind = torch.get_autocast_dtype(q.device.type)
    return q.to(kind), k.to(kind), v.to(kind)


def _flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _xformers(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    from xformers.ops import memory_efficient_attention

    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -torch.inf)
        bias = bias.expand(*q.shape[:3], mask.shape[-1])
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, L, N, head_dim)
    return memory_efficient_attention(q, k, v, attn_bias=bias).transpose(1, 2)


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    blocks = None
    if mask is not None:
        from torch.nn.attention.flex_attention import create_block_mask

        size, rows, columns = q.shape[0], q.shape[2], mask.shape[-1]
        whole = mask.expand(size, 1, rows, columns)

        def visible(b: Tensor, n: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return whole[b, 0, i, j]

        own = size if mask.ndim == 4 else None
        blocks = create_block_mask(visible, own, None, rows, columns, device=str(q.device))
    return _flex_kernel(q.is_cuda)(q.contiguous(), k.contiguous(), v.contiguous(), block_mask=blocks)


@cache
def _flex_kernel(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


def _does_not_run(kernel: str, q: Tensor, mask: Tensor | None, error: Exception) -> WamError:
    where = torch.cuda.get_device_name(q.device) if q.is_cuda else f"the {q.device.type}"
    kind = str(q.dtype).removeprefix("torch.")
    masked = " and a mask" if mask is not None else ""
    training = " in training" if q.requires_grad else ""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return expected(
        f"the attention kernel {kernel} to run on {where} with {kind}{masked}{training}",
        got=reason,
        do="set model.attention=sdpa",
    )
