"""The slow, obvious joint attention: one long sequence and one dense mask. The fast path is tested against it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from wam.model.expert import by_token
from wam.model.joint import JointTransformer, StreamInput
from wam.model.masks import causal_mask
from wam.model.visibility import VisibilityTable


def dense_forward(
    transformer: JointTransformer,
    streams: Mapping[str, StreamInput],
    table: VisibilityTable,
    *,
    window: int | None = None,
) -> dict[str, Tensor]:
    """What `JointTransformer.forward` returns for the same streams without a cache. Gradients of detached reads differ."""
    names = tuple(streams)
    lengths = {s: streams[s].h.shape[1] for s in names}
    blocks = [torch.cat([_block(r, s, streams, table, window) for s in names], dim=3) for r in names]
    mask = torch.cat(blocks, dim=2)  # (B, 1, L, L)
    h = {s: given.h for s, given in streams.items()}
    for layer in range(transformer.depth):
        modulation, parts = {}, {}
        for s in names:
            expert, condition = transformer.layers(s)[layer], streams[s].condition
            modulation[s] = expert.modulation(F.silu(condition) if isinstance(condition, Tensor) else condition)
            if (settled := streams[s].settled) is not None:
                modulation[s] = by_token(modulation[s], settled)
            parts[s] = expert.qkv(h[s], modulation[s], streams[s].rotary)
        q, k, v = (torch.cat([parts[s][i] for s in names], dim=2) for i in range(3))
        scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        attended = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v
        for s, piece in zip(names, attended.split(list(lengths.values()), dim=2), strict=True):
            h[s] = transformer.layers(s)[layer].update(h[s], piece, modulation[s])
    return h


def _block(
    reader: str, source: str, streams: Mapping[str, StreamInput], table: VisibilityTable, window: int | None
) -> Tensor:
    given, (size, columns) = streams[source], streams[source].h.shape[:2]
    rows = streams[reader].h.shape[1]
    shape = (size, 1, rows, columns)
    if not table.sources(reader, (source,)):
        return torch.zeros(shape, dtype=torch.bool)
    block = torch.ones(shape, dtype=torch.bool)
    if given.there is not None:
        block &= given.there[:, None, None]
    if reader == source and given.own is not None:
        block = given.own[:, None].expand(shape)
    if reader == source and reader in table.causal:
        block = block & causal_mask(given.frames, 0, rows // given.frames, window=window, device=torch.device("cpu"))
    return block
