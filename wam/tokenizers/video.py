"""Video tokenizers by name: raw pixels, the small autoencoder trained here, frozen tiny and diffusers VAEs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from wam.contracts import expected
from wam.tokenizers.autoencoder import Autoencoder, AutoencoderConfig, autoencoder_loss
from wam.tokenizers.diffusers_vae import DiffusersVae
from wam.tokenizers.interface import VideoTokenizer, to_signed, to_unit
from wam.tokenizers.tiny_autoencoder import TinyAutoencoder

__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "DiffusersVae",
    "PixelTokenizer",
    "TinyAutoencoder",
    "VideoConfig",
    "VideoTokenizer",
    "autoencoder_loss",
    "make_video_tokenizer",
    "to_signed",
    "to_unit",
]


class PixelTokenizer(VideoTokenizer):
    """Frames are their own latents; the model's patches do the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.spatial, self.temporal = 3, 1, 1
        self.provenance = {"source": "pixels", "revision": None, "random": False}

    def encode(self, frames: Tensor) -> Tensor:
        self.check_frames(frames)
        return frames

    def decode(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        return latents


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Which video tokenizer.

    kind: ``pixels``; ``autoencoder``, one saved by this library, at `name`; ``diffusers``, a VAE in diffusers' format at
    `name` (folder or hub name), perhaps in its `subfolder`; ``tiny``, the files `name`_encoder and `name`_decoder
    (.safetensors) of a TAESD-like autoencoder.
    """

    kind: Literal["pixels", "autoencoder", "diffusers", "tiny"] = "pixels"
    name: str | None = None
    revision: str | None = None
    subfolder: str = ""


def make_video_tokenizer(config: VideoConfig) -> VideoTokenizer:
    """The video tokenizer that the config names."""
    if config.kind == "pixels":
        return PixelTokenizer()
    if not config.name:
        raise expected(f"a name for the {config.kind} tokenizer", got="none", do="set `name` to a folder or a hub name")
    with torch.random.fork_rng(devices=[]):  # weights from a file must not shift the draws of those that learn
        return _from_files(config, config.name)


def _from_files(config: VideoConfig, name: str) -> VideoTokenizer:
    if config.kind == "autoencoder":
        # its latents are what a model learns to draw, so they must not move while it learns
        return Autoencoder.from_pretrained(Path(name)).requires_grad_(False)
    if config.kind == "tiny":
        return TinyAutoencoder(Path(f"{name}_encoder.safetensors"), Path(f"{name}_decoder.safetensors"))
    return DiffusersVae(name, config.revision, subfolder=config.subfolder)
