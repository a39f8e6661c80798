"""Counting a training step without timing it: operations, and bytes that the backward pass waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from wam.contracts import Batch
from wam.training.without_data import Losses


def count_flops(losses: Losses, batch: Batch, precision: str) -> float:
    """Floating-point operations of one window, forward and backward."""
    return flops_of(lambda: forward(losses, batch, precision, seed=0)) / batch.size


def flops_of(loss: Callable[[], Tensor]) -> float:
    """Of a loss and its backward pass. Attention is written out while counting, since the counter does not know every fused
    kernel."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        loss().backward()
    return counter.get_total_flops()


def saved_bytes(losses: Losses, batch: Batch, precision: str, *, but: nn.Module) -> int:
    """Bytes that one forward pass keeps for its backward pass, each storage once, the module's own tensors apart."""
    return kept_bytes(lambda: forward(losses, batch, precision, seed=0), but=but)


def kept_bytes(loss: Callable[[], Tensor], *, but: nn.Module) -> int:
    own = {_address(t) for t in (*but.parameters(), *but.buffers())}
    kept: dict[int, Tensor] = {}  # held, so that no storage is freed and its address used again

    def keep(tensor: Tensor) -> Tensor:
        address = _address(tensor)
        if address not in own:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _FusedOnMeta():
        loss()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class _FusedAttention(torch.autograd.Function):
    """What a fused kernel keeps: queries, keys, values, the output and a number for each query and head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors[:3])


class _FusedOnMeta(TorchFunctionMode):
    """On the meta device attention would be written out, and keep its scores; no accelerator does that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k, v = (*args, *(kwargs[name] for name in ("query", "key", "value") if name in kwargs))[:3]
            if q.is_meta:
                return _FusedAttention.apply(q, k, v)
        return func(*args, **kwargs)


def _address(tensor: Tensor) -> int:
    """Of the storage itself, which tensors on the meta device have too."""
    return tensor.untyped_storage()._cdata


def forward(losses: Losses, batch: Batch, precision: str, *, seed: int) -> Tensor:
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    if precision == "fp32":
        return losses(batch, torch.Generator().manual_seed(seed))["loss"]
    with torch.autocast(batch.images.device.type, kind):
        return losses(batch, torch.Generator().manual_seed(seed))["loss"]


def backward(losses: Losses, batch: Batch, precision: str, *, seed: int) -> None:
    forward(losses, batch, precision, seed=seed).backward()


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Parameters by part, in the order of the model: stems, transformer and heads by stream, the rest by module."""
    parts: dict[str, int] = {}
    for name, parameter in module.named_parameters():
        part = _part(name)
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def _part(name: str) -> str:
    path = name.removeprefix("network.").split(".")
    if path[0] == "transformer":
        return f"transformer, {path[2]}"
    if path[0] in ("stems", "heads"):
        inner = "text encoder" if path[1:3] == ["text", "encoder"] else f"{path[0][:-1]}, {path[1]}"
        return inner
    if path[0] == "videos":
        return f"{'head' if path[2] == 'head' else 'stem'}, {path[1]}"
    return path[0].replace("_", " ")
