"""What every video tokenizer offers: frames to latents and back, with the shapes that it accepts."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor, nn

from wam.contracts import expected


class VideoTokenizer(nn.Module, abc.ABC):
    """Frames to latents. Latents have about unit scale, so that diffusion noise of unit scale fits them.

    channels: c of a latent. spatial: pixels per latent along each side. temporal: frames per latent after the first.
    provenance: {source, revision, random}.

    A tokenizer with temporal > 1 is causal: its first latent holds the first frame alone and each further latent the
    next `temporal` frames, so it takes T = temporal * n + 1 frames and gives T' = n + 1 latents.
    """

    channels: int
    spatial: int
    temporal: int
    provenance: dict[str, Any]

    @abc.abstractmethod
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, V, T, H, W, 3) float in [-1, 1] -> latents (B, V, T', h, w, c)."""

    @abc.abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, V, T', h, w, c) -> frames (B, V, T, H, W, 3) float, about [-1, 1]."""

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(T', h, w, c) of the latents of `frames` frames of height x width pixels; WamError where they do not fit."""
        if frames < 1 or (frames - 1) % self.temporal:
            below = max(0, frames - 1) // self.temporal * self.temporal + 1
            raise expected(
                f"{self.temporal} n + 1 frames (the first alone, then {self.temporal} per latent)",
                got=f"{frames} frames",
                do=f"give {below} or {below + self.temporal} frames, the first being the present",
            )
        if height % self.spatial or width % self.spatial or not height or not width:
            raise expected(
                f"frames with sides that are multiples of {self.spatial}",
                got=f"{height} x {width}",
                do="resize the frames or choose another tokenizer",
            )
        return 1 + (frames - 1) // self.temporal, height // self.spatial, width // self.spatial, self.channels

    def check_frames(self, frames: Tensor) -> None:
        """Raise unless `frames` are float (B, V, T, H, W, 3) of a size that fits."""
        if frames.ndim != 6 or frames.shape[-1] != 3 or not torch.is_floating_point(frames):
            raise expected(
                "frames as float of shape (B, V, T, H, W, 3) in [-1, 1]",
                got=f"{frames.dtype} of shape {tuple(frames.shape)}",
                do="scale 8-bit frames with `to_signed`",
            )
        self.latent_shape(*frames.shape[2:5])

    def check_latents(self, latents: Tensor) -> None:
        """Raise unless `latents` are float (B, V, T', h, w, c) with this tokenizer's channels."""
        if latents.ndim != 6 or latents.shape[-1] != self.channels:
            raise expected(
                f"latents of shape (B, V, T', h, w, {self.channels})",
                got=f"shape {tuple(latents.shape)}",
                do="decode with the tokenizer that encoded them",
            )


def to_signed(frames: Tensor) -> Tensor:
    """uint8 in 0..255 -> float32 in [-1, 1], any shape."""
    return (frames.float() / 127.5).sub_(1.0)


def to_unit(frames: Tensor) -> Tensor:
    """Float in [-1, 1] -> float in [0, 1], clipped; any shape."""
    return ((frames + 1.0) / 2.0).clamp(0.0, 1.0)
