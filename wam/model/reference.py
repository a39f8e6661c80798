"""The slow, obvious joint attention: one long sequence and one dense mask. The fast path is tested against it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from wam.model.expert import by_token
from wam.model.joint import JointTransformer, StreamInput, causal_mask
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
    mask = torch.cat([torch.cat([_block(r, s, streams, table, window) for s in names], dim=1) for r in names], dim=0)
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
    rows, columns = streams[reader].h.shape[1], streams[source].h.shape[1]
    if not table.sources(reader, (source,)):
        return torch.zeros(rows, columns, dtype=torch.bool)
    if reader == source and reader in table.causal:
        frames = streams[reader].frames
        return causal_mask(frames, 0, rows // frames, window=window, device=torch.device("cpu"))
    return torch.ones(rows, columns, dtype=torch.bool)
