"""Tiny models with a pretrained future stream: every family at random weights, a linear map in the place of a VAE."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from wam.model.backbones.catalogue import CATALOGUE
from wam.model.backbones.config import BackboneConfig
from wam.model.config import ModelConfig, StreamConfig
from wam.model.wam import WorldActionModel
from wam.tokenizers.interface import VideoTokenizer
from wam.tokenizers.text import TextConfig

TEXT_WIDTH = 32
"""Of the features that the tiny networks read."""

EACH = (
    "wan2.1-t2v-1.3b",
    "wan2.1-i2v-14b",
    "wan2.2-ti2v-5b",
    "cosmos-predict2-2b",
    "cosmos-predict2.5-2b",
    "ltx-video",
)
"""One of each kind; the others of the catalogue differ in size alone."""


class LinearVae(VideoTokenizer):
    """A causal tokenizer that maps blocks of pixels by one random matrix; 2 frames and 4 x 4 pixels in a latent."""

    matrix: Tensor

    def __init__(self, channels: int, *, spatial: int = 4, temporal: int = 2) -> None:
        super().__init__()
        self.channels, self.spatial, self.temporal = channels, spatial, temporal
        self.provenance = {"source": "a random matrix", "revision": None, "random": True}
        g = torch.Generator().manual_seed(7)
        numbers = 3 * temporal * spatial**2
        matrix = torch.randn(numbers, channels, generator=g, device="cpu") / numbers**0.5
        self.register_buffer("matrix", matrix, persistent=False)

    def encode(self, frames: Tensor) -> Tensor:
        self.check_frames(frames)
        frames = torch.cat([frames[:, :, :1]] * (self.temporal - 1) + [frames], dim=2)
        blocks = rearrange(frames, "b v (t p) (h i) (w j) c -> b v t h w (p i j c)", **self._block)
        return (blocks @ self.matrix).float()

    def decode(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        blocks = (latents @ torch.linalg.pinv(self.matrix)).float()
        frames = rearrange(blocks, "b v t h w (p i j c) -> b v (t p) (h i) (w j) c", **self._block)
        return frames[:, :, self.temporal - 1 :]

    @property
    def _block(self) -> dict[str, int]:
        return {"p": self.temporal, "i": self.spatial, "j": self.spatial}


def tiny_config(name: str, *, shared: bool = False, **changes: object) -> ModelConfig:
    """A model of two layers whose future is the tiny network of this name; with `shared`, the observation runs through it
    too, and holds the present in its place."""
    observation = StreamConfig(kind="video", stem="patch", grid=4, join_views=True)
    backbone = BackboneConfig(name=name, weights="tiny")
    return ModelConfig(
        **{
            "width": 32,
            "depth": 2,
            "heads": 2,
            "head_dim": 16,
            "image_size": 16,
            "future": [1, 2, 3, 4],
            "text": TextConfig(width=TEXT_WIDTH),
            "streams": {
                "text": StreamConfig(kind="text"),
                "observation": StreamConfig(kind="video", shares="future") if shared else observation,
                "state": StreamConfig(kind="vector"),
                "future": StreamConfig(kind="video", predicts="velocity", backbone=backbone),
                "action": StreamConfig(kind="chunk", predicts="x0", width=24),
            },
            **changes,
        }  # type: ignore[arg-type]
    )


def vae_of(config: ModelConfig) -> LinearVae:
    backbone = config.streams["future"].backbone
    assert backbone is not None
    return LinearVae(CATALOGUE[backbone.name].config["out_channels"])


def tiny_model(name: str, *, seed: int = 0, **changes: object) -> WorldActionModel:
    torch.manual_seed(seed)
    config = tiny_config(name, **changes)  # type: ignore[arg-type]
    return WorldActionModel(config, video=vae_of(config)).eval()
