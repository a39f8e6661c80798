"""Changes to a window's frames in training. Every draw comes from the generator given."""

from __future__ import annotations

import torch
from torch import Tensor

from wam.tokenizers.latent_action.blocks import moved_camera
from wam.tokenizers.latent_action.config import AugmentConfig


def cropped(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """pictures (B, V, T, 3, H, W) -> a part of them, all frames of a window and view alike, at the same size: `strength` is the
    largest share of a side that is cut away."""
    if not strength:
        return pictures
    B, V, T = pictures.shape[:3]
    draws = torch.rand(B, V, 3, generator=generator).to(pictures.device)
    cut = strength * draws[..., 0]
    motion = torch.stack(
        [(2 * draws[..., 1] - 1) * cut, (2 * draws[..., 2] - 1) * cut, (1 - cut).log(), 0 * cut], dim=-1
    )
    return moved(pictures, motion[:, :, None].expand(-1, -1, T, -1))


def shaken(pictures: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """pictures (B, V, T, 3, H, W) with every frame after the first seen from a camera that has moved, in some windows."""
    if not config.camera:
        return pictures
    B, V, T = pictures.shape[:3]
    chosen = torch.rand(B, 1, 1, 1, generator=generator) < config.camera_share
    motion = (2 * torch.rand(B, V, T, 4, generator=generator) - 1) * 2 * config.camera
    motion[..., 2:] *= 0.5
    motion[:, :, 0] = 0
    return moved(pictures, (motion * chosen).to(pictures.device))


def coloured(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """pictures (B, V, T, 3, H, W) in [-1, 1] with gains and offsets of each colour, the same over a window and view."""
    if not strength:
        return pictures
    B, V = pictures.shape[:2]
    draws = (2 * torch.rand(2, B, V, 1, 3, 1, 1, generator=generator) - 1).to(pictures.device)
    return (pictures * (1 + strength * draws[0]) + strength * draws[1]).clamp(-1, 1)


def flipped(pictures: Tensor, there: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the windows that have a single view, mirrored; with several views left and right would disagree."""
    chosen = (torch.rand(len(pictures), generator=generator) < 0.5).to(pictures.device) & (there.sum(dim=1) == 1)
    return torch.where(chosen[:, None, None, None, None, None], pictures.flip(-1), pictures)


def moved(pictures: Tensor, motion: Tensor) -> Tensor:
    """pictures (B, V, T, 3, H, W) from cameras that have moved by motion (B, V, T, 4)."""
    found = moved_camera(pictures.flatten(0, 2), motion.reshape(-1, 4))
    return found.reshape(pictures.shape)
