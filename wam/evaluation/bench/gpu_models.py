"""Models to measure an accelerator with: from nano to a billion parameters, all native and around a network like Wan's.

Their latents and text features are given, as `data.latents` gives them in training: what is measured is the transformer.
Weights are random, which costs the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wam.contracts import Batch
from wam.diffusion.clocks import ClockConfig
from wam.model.backbones.catalogue import CATALOGUE, WAN
from wam.model.backbones.config import BackboneConfig
from wam.model.backbones.load import Backbone, build_backbone
from wam.model.config import ConditionalConfig, ModelConfig, StreamConfig
from wam.model.synthetic import synthetic_batch
from wam.model.wam import WorldActionModel
from wam.tokenizers.text import TextConfig, TextEncoder
from wam.tokenizers.video import VideoTokenizer

LIKE = "wan2.1-t2v-1.3b"
"""Of the catalogue: whose class, latents and text the Wan-shaped models have."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """width D of the video streams, depth, heads; the action's stream is half as wide. ffn: of a Wan-shaped network's layers.
    side: latents along a side of a view; batch: windows to begin with, fewer where memory is short."""

    name: str
    width: int
    depth: int
    heads: int
    ffn: int
    side: int
    batch: int


SIZES = {
    size.name: size
    for size in (
        Size(name="nano", width=64, depth=2, heads=2, ffn=128, side=8, batch=4),
        Size(name="200m", width=768, depth=6, heads=6, ffn=4480, side=32, batch=64),
        Size(name="500m", width=1024, depth=11, heads=8, ffn=5888, side=32, batch=48),
        Size(name="1b", width=1536, depth=14, heads=12, ffn=8960, side=32, batch=32),
    )
}
WAN_DEPTH = {"nano": 2, "200m": 8, "500m": 15, "1b": 17}
"""A layer of Wan's has its own attention to text, and the present runs through the same layers, so they are more."""


class GivenLatents(VideoTokenizer):
    """Wan's geometry without its network: latents come with the batch, and drawn ones stay undecoded."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.spatial, self.temporal = 16, 8, 4
        self.provenance = {"source": "shapes", "revision": None, "random": True}

    def encode(self, frames: Tensor) -> Tensor:
        raise NotImplementedError("latents are given")

    def decode(self, latents: Tensor) -> Tensor:
        """Black frames of the right shape."""
        size, views, times, height, width, _ = latents.shape
        frames = 1 + (times - 1) * self.temporal
        return latents.new_zeros(size, views, frames, height * self.spatial, width * self.spatial, 3)


class GivenText(TextEncoder):
    """The same features for every sentence, of the right shape."""

    features: Tensor

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.width = width
        self.provenance = {"source": "shapes", "revision": None, "random": True}
        self.register_buffer("features", torch.randn(1, tokens, width), persistent=False)

    def encode(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        features = self.features.expand(len(sentences), -1, -1)
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)


def make_sized(size: Size, *, wan: bool, device: torch.device) -> WorldActionModel:
    """The model of a size, made on the device itself: the CPU would take minutes over a billion random numbers."""
    backbone, config = _wan(size, device) if wan else (None, _native(size))
    with torch.device(device):
        model = WorldActionModel(
            config,
            text=GivenText(config.text.width, config.text.max_tokens),
            video=GivenLatents(),
            backbones={} if backbone is None else {"future": backbone},
        )
    return model.to(device)


def make_batch(model: WorldActionModel, count: int, *, device: torch.device, seed: int = 0) -> Batch:
    """Windows of noise with their latents, and pictures of no pixels."""
    config, video = model.config, model.network.video_tokenizer
    plain = synthetic_batch(config, count, seed=seed)
    assert plain.future is not None
    g = torch.Generator().manual_seed(seed)
    side = config.image_size // video.spatial

    def latents(times: int) -> Tensor:
        return torch.randn(count, config.views, times, side, side, video.channels, generator=g)

    def unseen(pictures: Tensor) -> Tensor:
        return pictures.new_zeros(*pictures.shape[:3], 0, 0, 3)

    return plain.replace(
        images=unseen(plain.images),
        future=unseen(plain.future),
        latents=latents(config.history),
        future_latents=latents(len(config.future) // video.temporal),
    ).to(device)


def _native(size: Size) -> ModelConfig:
    grid = min(16, size.side)
    video: dict[str, Any] = {"kind": "video", "stem": "patch", "grid": grid, "mlp_ratio": 4.0}
    return _config(
        size,
        depth=size.depth,
        heads=size.heads,
        text=TextConfig(width=256, max_tokens=16),
        streams={"observation": StreamConfig(**video), "future": StreamConfig(**video, predicts="velocity")},
    )


def _wan(size: Size, device: torch.device) -> tuple[Backbone, ModelConfig]:
    known, depth = CATALOGUE[LIKE], WAN_DEPTH[size.name]
    shape: dict[str, Any] = {
        "num_attention_heads": size.heads,
        "attention_head_dim": size.width // size.heads,
        "num_layers": depth,
        "ffn_dim": size.ffn,
    }
    if size.name == "nano":
        shape["text_dim"] = 32
    backbone = build_backbone(
        {"class": WAN, "config": {**known.config, **shape}},
        name=LIKE,
        provenance={"source": f"{size.name}, at random", "revision": None, "sha256": None, "random": True},
        device=str(device),
    )
    future = StreamConfig(kind="video", predicts="velocity", backbone=BackboneConfig(name=LIKE, weights="tiny"))
    config = _config(
        size,
        depth=depth,
        heads=size.heads,
        text=TextConfig(width=backbone.description.text_width, max_tokens=16),
        streams={"observation": StreamConfig(kind="video", shares="future"), "future": future},
    )
    return backbone, config


def _config(size: Size, *, depth: int, heads: int, text: TextConfig, streams: dict[str, StreamConfig]) -> ModelConfig:
    """Two views, a present, two latents of the future and 16 actions; half of the draws imagine."""
    return ModelConfig(
        width=size.width // 2,
        condition_width=min(512, size.width),
        depth=depth,
        heads=heads,
        head_dim=size.width // heads,
        image_size=8 * size.side,
        views=2,
        future=list(range(1, 9)),
        chunk=16,
        draws=1,
        text=text,
        streams={
            "text": StreamConfig(kind="text", width=min(256, size.width)),
            **{s: _as_wide(c, size.width) for s, c in streams.items()},
            "state": StreamConfig(kind="vector", width=min(256, size.width)),
            "action": StreamConfig(kind="chunk", predicts="x0", clock=ClockConfig(shift=5.0), mlp_ratio=4.0),
        },
        conditionals=[
            ConditionalConfig(name="policy", weight=1.0, clocks={"action": "draw", "future": "dropped"}),
            ConditionalConfig(name="joint", weight=1.0, clocks={"action": "draw", "future": "draw"}),
        ],
    )


def _as_wide(stream: StreamConfig, width: int) -> StreamConfig:
    """Native video streams have the size's width; pretrained ones their own."""
    if stream.backbone is None and not stream.shares:
        stream.width = width
    return stream
