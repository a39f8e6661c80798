"""Context parallelism: each rank of a group holds its share of every stream's tokens inside the layers of a joint transformer.

Source: DeepSpeed-Ulysses (Jacobs et al. 2023). Before attention the ranks exchange "all heads of my tokens" for "my heads of
all tokens", and after it they exchange back. So attention is the same function as on one rank, of fewer heads: streams of
any lengths, masks and cached keys need nothing of their own. What is done token by token is spread over the ranks.

All that ranks exchange is exchanged by one operation, which is its own adjoint. So where every rank computes the group's loss
and gradients are means over all ranks, they are those of one rank, both inside the layers, where a rank sees a part of the
tokens, and outside, where it sees all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from wam.model.attention import alike

if TYPE_CHECKING:
    from wam.model.joint import StreamInput


class _Exchange(torch.autograd.Function):
    """What one rank sends to another comes from there in the backward pass."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _exchanged(parts, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _exchanged(gradients[0].contiguous(), ctx.group), None


def _exchanged(parts: Tensor, group: dist.ProcessGroup) -> Tensor:
    came = torch.empty_like(parts)
    dist.all_to_all_single(came, parts, group=group)
    return came


@dataclass(frozen=True, kw_only=True)
class Peers:
    """The ranks that have the same windows, `ranks` of them; `rank` is this one's place among them."""

    group: dist.ProcessGroup
    rank: int
    ranks: int

    def exchange(self, parts: Tensor) -> Tensor:
        """parts (ranks, ...), one for each rank -> what each rank had for this one, in their order."""
        return _Exchange.apply(parts.contiguous(), self.group)

    def spread(self, streams: Mapping[str, StreamInput]) -> Spread:
        """These streams, dealt to the ranks."""
        return Spread(peers=self, deals={s: Deal.of(given, self.ranks) for s, given in streams.items()})


@dataclass(frozen=True, kw_only=True)
class Deal:
    """How a stream's tokens L = blocks * block are dealt to the ranks. A block is what shares one condition, and each rank has
    as many tokens of it as any other: where they do not come out even, the last ranks have zeros, which nobody reads."""

    ranks: int
    blocks: int
    block: int

    @classmethod
    def of(cls, given: StreamInput, ranks: int) -> Deal:
        condition, blocks = given.condition, 1
        if condition is not None and given.settled is None:  # else a token has its own, or none
            blocks = (condition if isinstance(condition, Tensor) else condition.embedded).shape[1]
        return cls(ranks=ranks, blocks=blocks, block=given.h.shape[1] // blocks)

    @property
    def share(self) -> int:
        """Tokens of a block that one rank has."""
        return -(-self.block // self.ranks)

    def out(self, x: Tensor, axis: int) -> Tensor:
        """x with L tokens along an axis -> (ranks, ...) with blocks * share along it."""
        axis %= x.ndim
        x = x.unflatten(axis, (self.blocks, self.block))
        if missing := self.ranks * self.share - self.block:
            x = F.pad(x, (*(0, 0) * (x.ndim - axis - 2), 0, missing))
        return x.unflatten(axis + 1, (self.ranks, self.share)).movedim(axis + 1, 0).flatten(axis + 1, axis + 2)

    def back(self, x: Tensor, axis: int) -> Tensor:
        """What `out` gave for x along this axis -> x."""
        axis %= x.ndim - 1
        x = x.unflatten(axis + 1, (self.blocks, self.share)).movedim(0, axis + 1).flatten(axis + 1, axis + 2)
        return x.narrow(axis + 1, 0, self.block).flatten(axis, axis + 1)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The streams of one pass through the layers over the ranks of a group."""

    peers: Peers
    deals: Mapping[str, Deal]

    def own(self, streams: Mapping[str, StreamInput]) -> dict[str, StreamInput]:
        """This rank's tokens of each stream, with what goes with each token; who reads whom is still said of all."""
        found = {}
        for s, given in streams.items():
            deal, rank = self.deals[s], self.peers.rank
            rotary = given.rotary and (deal.out(given.rotary[0], -2)[rank], deal.out(given.rotary[1], -2)[rank])
            settled = None if given.settled is None else deal.out(given.settled, 1)[rank]
            found[s] = replace(given, h=deal.out(given.h, 1)[rank], rotary=rotary, settled=settled)
        return found

    def whole(self, h: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tokens (B, own, D) of every rank -> all of them (B, L, D), on every rank."""
        ranks = self.peers.ranks
        return {s: self.deals[s].back(self.peers.exchange(x.expand(ranks, *x.shape)), 1) for s, x in h.items()}

    def by_heads(self, stream: str, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, N, own, head_dim) -> (B, N / ranks, L, head_dim): of fewer heads and all tokens. Each
        goes by itself, so that one that nothing is asked of has no gradient, as on one rank."""
        ranks, deal = self.peers.ranks, self.deals[stream]
        dealt = (x.unflatten(1, (ranks, -1)).movedim(1, 0) for x in alike(q, k, v))
        q, k, v = (deal.back(self.peers.exchange(x), 2) for x in dealt)
        return q, k, v

    def by_tokens(self, stream: str, attended: Tensor) -> Tensor:
        """What was attended to (B, N / ranks, L, head_dim) -> (B, N, own, head_dim): of all heads and this rank's tokens."""
        return self.peers.exchange(self.deals[stream].out(attended, 2)).movedim(0, 1).flatten(1, 2)
