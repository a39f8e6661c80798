"""The native stream expert: a DiT block split in two, so that attention between its halves can join streams.

Source: DiT (Peebles and Xie 2023) for adaLN; mixture of transformers (Liang et al. 2024) for the split.
A pretrained expert is any module with the same three methods (see `wam.model.backbones`).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.model.rope import rotate

Rotary = tuple[Tensor, Tensor]


class Modulation(NamedTuple):
    """Shift, scale and gate before attention and before the MLP, each (B, G, D); G groups of L / G tokens share one."""

    shift_attention: Tensor
    scale_attention: Tensor
    gate_attention: Tensor
    shift_mlp: Tensor
    scale_mlp: Tensor
    gate_mlp: Tensor


class Expert(Protocol):
    """What the joint transformer asks of one layer of one stream."""

    def modulation(self, condition: Tensor) -> Modulation: ...
    def qkv(self, h: Tensor, modulation: Modulation, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]: ...
    def update(self, h: Tensor, attended: Tensor, modulation: Modulation) -> Tensor: ...


def grouped(h: Tensor, groups: int) -> Tensor:
    """(B, L, D) -> (B, G, L / G, D)."""
    return h.unflatten(1, (groups, -1))


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: h (B, L, D), shift and scale (B, G, D)."""
    if shift.shape[1] in (1, h.shape[1]):
        return torch.addcmul(shift, h, 1 + scale)
    return torch.addcmul(shift[:, :, None], grouped(h, shift.shape[1]), 1 + scale[:, :, None]).flatten(1, 2)


def gated(h: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    if gate.shape[1] in (1, h.shape[1]):
        return torch.addcmul(h, gate, update)
    return torch.addcmul(grouped(h, gate.shape[1]), gate[:, :, None], grouped(update, gate.shape[1])).flatten(1, 2)


def by_token(modulation: Modulation, settled: Tensor) -> Modulation:
    """Two groups' modulation, (B, 2, D) each, as every token's own, (B, L, D): the second where settled (B, L)."""
    return Modulation(*(torch.where(settled[..., None], part[:, 1:], part[:, :1]) for part in modulation))


class NativeExpert(nn.Module):
    """One layer of one stream. width D; heads N of size head_dim are shared with the other streams."""

    def __init__(self, *, width: int, heads: int, head_dim: int, condition_width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.to_modulation = nn.Linear(condition_width, 6 * width)
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.to_qkv = nn.Linear(width, 3 * heads * head_dim)
        self.norm_q = nn.LayerNorm(head_dim, eps=1e-6)  # fused on every device, unlike RMSNorm
        self.norm_k = nn.LayerNorm(head_dim, eps=1e-6)
        self.to_out = nn.Linear(heads * head_dim, width)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp_in = nn.Linear(width, int(mlp_ratio * width))
        self.mlp_out = nn.Linear(int(mlp_ratio * width), width)
        # Gates start open, unlike adaLN-zero, so that a short training hears the action sooner.
        nn.init.normal_(self.to_modulation.weight, std=0.02)
        with torch.no_grad():
            self.to_modulation.bias.zero_()
            self.to_modulation.bias.view(6, width)[[2, 5]] = 1.0

    def modulation(self, condition: Tensor) -> Modulation:
        """condition (B, G, condition_width), already through its activation."""
        return Modulation(*self.to_modulation(condition).chunk(6, dim=-1))

    def qkv(self, h: Tensor, modulation: Modulation, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        """h (B, L, D) -> queries, keys, values, each (B, N, L, head_dim)."""
        h = modulate(self.norm_attention(h), modulation.shift_attention, modulation.scale_attention)
        q, k, v = rearrange(self.to_qkv(h), "b l (three n d) -> three b n l d", three=3, n=self.heads)
        q, k = self.norm_q(q), self.norm_k(k)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return q, k, v

    def update(self, h: Tensor, attended: Tensor, modulation: Modulation) -> Tensor:
        """attended (B, N, L, head_dim) -> the stream after this layer (B, L, D)."""
        h = gated(h, self.to_out(rearrange(attended, "b n l d -> b l (n d)")), modulation.gate_attention)
        inner = modulate(self.norm_mlp(h), modulation.shift_mlp, modulation.scale_mlp)
        return gated(h, self.mlp_out(F.gelu(self.mlp_in(inner), approximate="tanh")), modulation.gate_mlp)
