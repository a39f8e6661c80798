"""Frames of a model's size to latents of its video tokenizer, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.model.config import ModelConfig
from wam.tokenizers.video import VideoTokenizer, to_signed, to_unit


def signed(frames: Tensor) -> Tensor:
    """uint8 or [0, 1] float frames -> float in [-1, 1]."""
    return to_signed(frames) if frames.dtype == torch.uint8 else frames.float() * 2 - 1


class FrameCoder(nn.Module):
    """Whatever holds a model's video tokenizer."""

    def __init__(self, config: ModelConfig, video: VideoTokenizer) -> None:
        super().__init__()
        self.config, self.video_tokenizer = config, video

    def encode_frames(self, frames: Tensor) -> Tensor:
        """uint8 or [0, 1] float frames (B, V, T, H, W, C) -> latents (B, V, T', h, w, c), each of a frame by itself."""
        size = self.config.image_size
        if frames.shape[-3:] != (size, size, 3):
            raise expected(
                f"frames of {size} x {size} x 3",
                got=tuple(frames.shape[-3:]),
                do="resize them, or set model.image_size",
            )
        if frames.shape[1] != self.config.views:
            raise expected(f"{self.config.views} views", got=frames.shape[1], do="choose the cameras of the dataset")
        if self.video_tokenizer.temporal == 1:
            return self.video_tokenizer.encode(signed(frames))
        return torch.cat([self.video_tokenizer.encode(frame) for frame in signed(frames).split(1, dim=2)], dim=2)

    def encode_future(self, images: Tensor, future: Tensor) -> Tensor:
        """Frames to come -> their latents. A causal tokenizer starts from the present and its first latent is dropped."""
        if self.video_tokenizer.temporal == 1:
            return self.encode_frames(future)
        frames = torch.cat([images[:, :, -1:], future], dim=2)
        return self.video_tokenizer.encode(signed(frames))[:, :, 1:]

    def observed(self, batch: Batch) -> Tensor:
        """Latents (B, V, T, h, w, c) of the observed frames: those that the batch brings, else of its pictures."""
        if batch.latents is None:
            return self.encode_frames(batch.images)
        return self._fitting(batch.latents, batch.images.shape[2])

    def foreseen(self, batch: Batch) -> Tensor:
        """Latents (B, V, T', h, w, c) of the frames to come, likewise."""
        assert batch.future is not None
        if batch.future_latents is None:
            return self.encode_future(batch.images, batch.future)
        return self._fitting(batch.future_latents, batch.future.shape[2] // self.video_tokenizer.temporal)

    def _fitting(self, latents: Tensor, times: int) -> Tensor:
        side = self.config.image_size // self.video_tokenizer.spatial
        wanted = (self.config.views, times, side, side, self.video_tokenizer.channels)
        if latents.shape[1:] != wanted:
            raise expected(f"latents of shape (B, {wanted})", got=tuple(latents.shape), do="make them for this model")
        return latents

    def decode_future(self, present: Tensor, latents: Tensor) -> Tensor:
        """Latents (B, V, T', h, w, c) -> frames (B, V, T, H, W, C) in [0, 1]; present: latents of the frame before them."""
        if self.video_tokenizer.temporal == 1:
            return to_unit(self.video_tokenizer.decode(latents))
        return to_unit(self.video_tokenizer.decode(torch.cat([present, latents], dim=2)))[:, :, 1:]
