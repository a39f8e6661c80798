"""Discrete action tokens that go on from what is seen and asked, and teach the trunk to foresee actions.

Where the actions' expert reads the trunk without a gradient, so that its noisy start spoils nothing, something else has to make
the trunk know actions: next-token prediction of the same chunk (pi0.5 with knowledge insulation, Driess et al. 2025). Tokens
run through the observation's layers after its cached keys and values, each reading the ones before it. No other stream reads
them, and sampling does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import expected
from wam.model.backbones.vlm.scene import SceneEnds
from wam.model.config import ModelConfig
from wam.model.context import Context
from wam.model.joint import StreamInput
from wam.model.masks import sentence_mask
from wam.model.rope import chunk_positions, rotary_table

if TYPE_CHECKING:
    from wam.model.network import JointNetwork

TRUNK = "observation"


class NativeTokens(nn.Module):
    """The tokens' own embedding and head, where the trunk is no language model. D is the observation's width."""

    def __init__(self, codes: int, *, width: int, head_dim: int) -> None:
        super().__init__()
        self.begin, self.head_dim = codes, head_dim
        self.embed = nn.Embedding(codes + 1, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, codes)

    @classmethod
    def of(cls, config: ModelConfig, *, trunk: nn.Module, width: int) -> NativeTokens | None:
        """None where there are no action tokens, or where a language model has words for them."""
        wanted = config.action_tokens
        if wanted.kind == "none":
            return None
        if "action" not in config.streams:
            raise expected(
                "an action stream beside action tokens",
                got="none",
                do="give the model one, or set model.action_tokens.kind=none",
            )
        if not isinstance(trunk, SceneEnds):
            return cls(wanted.codes, width=width, head_dim=config.head_dim)
        backbone, lora = config.streams[TRUNK].backbone, config.streams[TRUNK].lora
        if wanted.codes > trunk.codes:
            raise expected(
                f"at most {trunk.codes} action tokens for this vocabulary",
                got=wanted.codes,
                do="lower `model.action_tokens.bins` or `.vocabulary`",
            )
        if backbone is not None and backbone.frozen and lora is None:
            raise expected(
                "a backbone that action tokens can train",
                got="a frozen one without adapters",
                do=f"set model.streams.{TRUNK}.backbone.frozen=false or model.streams.{TRUNK}.lora, or "
                "model.action_tokens.kind=none",
            )
        return None

    def say(self, codes: Tensor, known: Tensor, condition: Tensor) -> StreamInput:
        """codes (B, L), known (B, L) bool, condition (B, 1, condition width) -> L tokens, each of the code before it."""
        told = F.pad(codes[:, :-1], (1, 0), value=self.begin)
        there = F.pad(known[:, :-1], (1, 0), value=True)
        positions = chunk_positions(torch.arange(codes.shape[1])).to(codes.device)
        return StreamInput(
            h=self.embed(told),
            condition=condition,
            rotary=rotary_table(positions, self.head_dim),
            own=sentence_mask(there, causal=True),
            there=there,
        )

    def said(self, h: Tensor) -> Tensor:
        return self.head(self.norm(h))


def token_logits(network: JointNetwork, context: Context, codes: Tensor, known: Tensor) -> Tensor:
    """Logits (B, L, codes) of each code (B, L), given the context and the codes before it; known (B, L) bool."""
    trunk = network.videos[TRUNK]
    if isinstance(trunk, SceneEnds):
        given = trunk.say(codes, known, context.caches[TRUNK])
        h, _ = network.transformer({TRUNK: given}, network.table, context=context.caches)
        return trunk.said(h[TRUNK], codes.shape[1], network.config.action_tokens.codes)
    own, condition = cast(NativeTokens, network.action_tokens), network.stream_bias[TRUNK].expand(context.size, 1, -1)
    for source in network.table.modulators(TRUNK, context.summaries):
        condition = condition + network.edges[f"{source}->{TRUNK}"](context.summaries[source])
    given = own.say(codes, known, condition)
    h, _ = network.transformer({TRUNK: given}, network.table, context=context.caches)
    return own.said(h[TRUNK])


def token_loss(network: JointNetwork, context: Context, codes: Tensor, known: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the known codes, each row's mean counting once; 0 where none is known."""
    logits = token_logits(network, context, codes, known).float()
    each = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(codes.shape)
    rows = (each * known).sum(1) / known.sum(1).clamp_min(1)
    return rows.sum() / known.any(1).sum().clamp_min(1)
