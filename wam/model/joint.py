"""The joint transformer: one loop over layers in which every stream projects, attends and updates.

A stream attends to the concatenated keys and values of the streams it sees, so no dense mask exists across streams and
the flash kernels apply. Only block-causal streams mask, and only inside themselves. `wam.model.reference` holds the
slow dense-mask version that this one is tested against.

A layer of all streams is one module, `JointLayer`: what is computed again in the backward pass where memory is short, and what
is gathered at once where the weights are spread over ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from wam.model.attention import attend, check_kernel
from wam.model.expert import NativeExpert, Rotary, by_token
from wam.model.masks import causal_mask, whole_mask
from wam.model.rope import rotate
from wam.model.visibility import VisibilityTable

if TYPE_CHECKING:
    from wam.model.backbones.interface import Told
    from wam.model.context_parallel import Peers, Spread

KeysValues = tuple[Tensor, Tensor]
Sources = tuple[tuple[str, bool], ...]
"""(stream, detached) of all that a stream sees."""


@dataclass(kw_only=True)
class StreamInput:
    """One stream at the transformer's door: tokens h (B, L, D), condition (B, G, condition width), or what a pretrained
    stream's layers are told in its place, rotary table, frames (T): into how many equal blocks a causal stream's tokens
    fall. settled (B, L) bool: the tokens of a chunk whose condition is the second of two, not the first.
    own (B or 1, L, L) bool: which of its own tokens each reads, where the table does not say it. there (B, L) bool: the
    tokens that are there for other streams to read, where some are padding."""

    h: Tensor
    condition: Tensor | Told | None
    rotary: Rotary | None = None
    frames: int = 1
    settled: Tensor | None = None
    own: Tensor | None = None
    there: Tensor | None = None


@dataclass(kw_only=True)
class StreamCache:
    """Keys and values of one context stream, per layer, each (B, N, L, head_dim); frames they cover; there (B, L) bool:
    see `StreamInput`."""

    layers: list[KeysValues] = field(default_factory=list)
    frames: int = 1
    there: Tensor | None = None

    def expand(self, repeats: int) -> StreamCache:
        """Each row repeated, for several draws per context."""
        layers = [(k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)) for k, v in self.layers]
        there = None if self.there is None else self.there.repeat_interleave(repeats, 0)
        return replace(self, layers=layers, there=there)

    def take(self, rows: Tensor) -> StreamCache:
        """The rows of these indices (N,)."""
        there = None if self.there is None else self.there[rows]
        return replace(self, layers=[(k[rows], v[rows]) for k, v in self.layers], there=there)

    def turned(self, rotary: Rotary) -> StreamCache:
        """Keys carried to other positions: rotations compose, so the table of the difference moves them there."""
        return replace(self, layers=[(rotate(k, rotary), v) for k, v in self.layers])

    def extend(self, newer: StreamCache, *, keep: int) -> StreamCache:
        """This cache followed by `newer`, the oldest frames beyond `keep` forgotten."""
        frames = min(self.frames + newer.frames, keep)
        layers = []
        for (k, v), (new_k, new_v) in zip(self.layers, newer.layers, strict=True):
            kept = frames * (new_k.shape[2] // newer.frames)
            layers.append((torch.cat([k, new_k], 2)[:, :, -kept:], torch.cat([v, new_v], 2)[:, :, -kept:]))
        return StreamCache(layers=layers, frames=frames)


def _join(sources: Sources, cached: Mapping[str, KeysValues], own: Mapping[str, KeysValues]) -> KeysValues:
    """Keys and values of these streams, the cached ones of a stream before its own."""
    parts = [(part[s], detached) for s, detached in sources for part in (cached, own) if s in part]
    pairs = [(k.detach(), v.detach()) if detached else (k, v) for (k, v), detached in parts]
    if len(pairs) == 1:
        return pairs[0]
    keys, values = zip(*pairs, strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Who reads what, the same in every layer. experts: by stream, whose expert it runs through. sources, rotaries, masks
    and settled by stream; a mask (L, L') is of the stream's own keys, cached ones first, before which it sees everything, and
    one (B, 1, L or 1, L') of all keys; settled (B, L) bool: see `StreamInput`. spread: how tokens are dealt to the ranks of a
    group, of which rotaries and settled are then this one's share; None: they are whole."""

    experts: Mapping[str, str]
    sources: Mapping[str, Sources]
    rotaries: Mapping[str, Rotary | None]
    masks: Mapping[str, Tensor | None]
    settled: Mapping[str, Tensor | None]
    spread: Spread | None = None


class JointLayer(nn.Module):
    """One layer of every stream. The experts own its weights, so it has no parameters itself and no name in a checkpoint."""

    def __init__(self, experts: Mapping[str, nn.Module], *, attention: str, checkpointing: bool) -> None:
        super().__init__()
        self._experts = (dict(experts),)  # in a tuple: modules that others own are no submodules here
        self.attention, self.checkpointing = attention, checkpointing
        self.backend = ""  # of torch.compile; none: as it is

    @property
    def experts(self) -> dict[str, Any]:
        return self._experts[0]

    def run(
        self,
        h: Mapping[str, Tensor],
        conditions: Mapping[str, Any],
        cached: Mapping[str, KeysValues],
        reading: Reading,
        keys_only: bool = False,
    ) -> tuple[dict[str, Tensor], dict[str, KeysValues]]:
        """Tokens (B, L, D) by stream -> the same after this layer, and their keys and values. keys_only: the tokens stay."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            leaves, shape = tree_flatten((dict(h), dict(conditions), dict(cached)))

            def run(*leaves: Any) -> tuple[dict[str, Tensor], dict[str, KeysValues]]:
                tokens, told, known = tree_unflatten(leaves, shape)
                return self._how()(self, tokens, told, known, reading, keys_only)

            return checkpoint(run, *leaves, use_reentrant=False)  # tensors one by one, so that it sees them all
        return self._how()(self, h, conditions, cached, reading, keys_only)

    def _how(self) -> Any:
        return _compiled_run(self.backend) if self.backend else JointLayer._run

    def _run(
        self,
        h: Mapping[str, Tensor],
        conditions: Mapping[str, Any],
        cached: Mapping[str, KeysValues],
        reading: Reading,
        keys_only: bool,
    ) -> tuple[dict[str, Tensor], dict[str, KeysValues]]:
        modulation, queries = {}, {}
        own: dict[str, KeysValues] = {}
        for s, tokens in h.items():
            expert = self.experts[reading.experts[s]]
            modulation[s] = expert.modulation(conditions[s])
            settled = reading.settled[s]
            if settled is not None:
                modulation[s] = by_token(modulation[s], settled)
            queries[s], key, value = expert.qkv(tokens, modulation[s], reading.rotaries[s])
            if reading.spread is not None:
                queries[s], key, value = reading.spread.by_heads(s, queries[s], key, value)
            own[s] = (key, value)
        if keys_only:
            return dict(h), own
        joined: dict[Sources, KeysValues] = {}  # streams that see the same share one copy of it
        updated = {}
        for s, tokens in h.items():
            sources = reading.sources[s]
            if sources not in joined:
                joined[sources] = _join(sources, cached, own)
            keys, values = joined[sources]
            mask = reading.masks[s]
            if mask is not None:  # all before a causal stream's own keys are visible
                mask = F.pad(mask, (keys.shape[2] - mask.shape[-1], 0), value=True)
            attended = attend(queries[s], keys, values, mask=mask, kernel=self.attention)
            if reading.spread is not None:
                attended = reading.spread.by_tokens(s, attended)
            updated[s] = self.experts[reading.experts[s]].update(tokens, attended, modulation[s])
        return updated, own


@cache
def _compiled_run(backend: str) -> Any:
    """One function for all layers: what is compiled for one serves the others, whose weights alone differ."""
    # a conditional's streams, the context's and its last layer's are each a case of their own, in training and in sampling
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(JointLayer._run, backend=backend)


def compile_blocks(module: nn.Module, on: bool = True, *, backend: str = "inductor") -> None:
    """Compile the repeated layer of every joint transformer inside, not the model around it: minutes become seconds, and
    shapes may change outside. The same result within rounding."""
    for part in module.modules():
        if isinstance(part, JointLayer):
            part.backend = backend if on else ""


class JointTransformer(nn.Module):
    """Stream experts side by side, `depth` layers of them. widths: D by stream of those made here.

    pretrained: `depth` layers by stream that come as they are. shared: streams that run through another's experts.
    attention: the kernel. checkpointing: keep no layer's inside for the backward pass, which computes it again.
    peers: ranks among which tokens are dealt inside the layers (`wam.model.context_parallel`). All of them have to call, with
    the same windows; a cache then holds each rank's own heads.
    """

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        depth: int,
        heads: int,
        head_dim: int,
        condition_width: int,
        mlp_ratios: Mapping[str, float],
        pretrained: Mapping[str, Sequence[nn.Module]] | None = None,
        shared: Mapping[str, str] | None = None,
        attention: str = "auto",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_kernel(attention)
        self.depth, self.heads, self.shared = depth, heads, dict(shared or {})
        self.peers: Peers | None = None
        self.experts = nn.ModuleDict(
            {
                stream: nn.ModuleList(
                    NativeExpert(
                        width=width,
                        heads=heads,
                        head_dim=head_dim,
                        condition_width=condition_width,
                        mlp_ratio=mlp_ratios[stream],
                    )
                    for _ in range(depth)
                )
                for stream, width in widths.items()
            }
        )
        for stream, layers in (pretrained or {}).items():
            self.experts[stream] = nn.ModuleList(layers)
        self.steps = nn.ModuleList(
            JointLayer(
                {s: cast(nn.ModuleList, experts)[layer] for s, experts in self.experts.items()},
                attention=attention,
                checkpointing=checkpointing,
            )
            for layer in range(depth)
        )

    def layers(self, stream: str) -> Any:
        """The stream's experts, one of each layer."""
        return self.experts[self.shared.get(stream, stream)]

    def forward(
        self,
        streams: Mapping[str, StreamInput],
        table: VisibilityTable,
        *,
        context: Mapping[str, StreamCache] | None = None,
        keep_cache: bool = False,
        cache_only: bool = False,
        window: int | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, StreamCache]]:
        """Run the given streams; `context` holds streams computed earlier, which are read and not run.

        A causal stream that is both given and cached reads its cached frames as its past; `window` bounds how many
        frames a causal stream looks back over. Returns each stream's tokens after the last layer, and, with
        `keep_cache`, the keys and values of the given streams. `cache_only` is for streams of which nothing else is
        wanted: it stops after the last layer's keys and values, so the tokens it returns lack that layer.
        """
        keep_cache |= cache_only
        context = context or {}
        spread = None if self.peers is None else self.peers.spread(streams)
        dealt = streams if spread is None else spread.own(streams)
        h = {s: given.h for s, given in dealt.items()}
        present = tuple(dict.fromkeys([*context, *streams]))
        kept = {s: StreamCache(frames=g.frames, there=g.there) for s, g in streams.items()} if keep_cache else {}
        conditions = {
            s: F.silu(given.condition) if isinstance(given.condition, Tensor) else given.condition
            for s, given in streams.items()
        }
        reading = Reading(
            experts={s: self.shared.get(s, s) for s in streams},
            sources={s: self._sources(s, table, present) for s in streams},
            rotaries={s: given.rotary for s, given in dealt.items()},
            masks={
                s: self._whole(s, streams, table, context, self._mask(s, given, table, context, window))
                for s, given in streams.items()
            },
            settled={s: given.settled for s, given in dealt.items()},
            spread=spread,
        )
        for number, step in enumerate(self.steps):
            cached = {s: cache.layers[number] for s, cache in context.items()}
            last = cache_only and number == self.depth - 1
            h, own = cast(JointLayer, step).run(h, conditions, cached, reading, last)
            for s in kept:
                kept[s].layers.append(own[s])
        return h if spread is None else spread.whole(h), kept

    @staticmethod
    def _sources(stream: str, table: VisibilityTable, present: tuple[str, ...]) -> Sources:
        """What `stream` sees; itself last where it is causal, since its mask speaks of its own keys alone."""
        found = table.sources(stream, present)
        return tuple(sorted(found, key=lambda pair: pair[0] == stream)) if stream in table.causal else found

    @staticmethod
    def _mask(
        stream: str,
        given: StreamInput,
        table: VisibilityTable,
        context: Mapping[str, StreamCache],
        window: int | None,
    ) -> Tensor | None:
        if stream not in table.causal:
            return None
        past = context[stream].frames if stream in context else 0
        if given.frames == 1 and (window is None or past < window):
            return None
        tokens = given.h.shape[1] // given.frames
        return causal_mask(given.frames, past, tokens, window=window, device=given.h.device)

    def _whole(
        self,
        stream: str,
        streams: Mapping[str, StreamInput],
        table: VisibilityTable,
        context: Mapping[str, StreamCache],
        mask: Tensor | None,
    ) -> Tensor | None:
        """`mask` over all keys that a stream reads, where some of them are padding or its own reading is given."""
        sources = self._sources(stream, table, tuple(dict.fromkeys([*context, *streams])))
        lengths: list[int] = []
        parts: list[Tensor | None] = []
        for s, _ in sources:
            if s in context:
                lengths.append(context[s].layers[0][0].shape[2])
                parts.append(_readable(context[s].there))
            if s in streams:
                lengths.append(streams[s].h.shape[1])
                own = streams[s].own if s == stream else None
                parts.append(_readable(streams[s].there) if own is None else own)
        if all(part is None for part in parts):
            return mask
        return whole_mask(parts, lengths, mask, device=streams[stream].h.device)


def _readable(there: Tensor | None) -> Tensor | None:
    """(B, L) -> (B, 1, L): the same for every reader."""
    return None if there is None else there[:, None]
