"""Do codes drive the picture, and only what they should: sensitivity, swaps between scenes, camera shake."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from wam.evaluation.gates import derangement
from wam.evaluation.latent_action.readings import AT_ONCE, Readings, encoded, mask_of
from wam.evaluation.video_metrics import changed_pixels, squared_error
from wam.tokenizers.latent_action import LatentActionTokenizer
from wam.tokenizers.latent_action.blocks import moved_camera


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """Mean squared errors of the next frame on pixels that change: with the window's own latents, with another window's, and of
    a copy of the present. n: windows."""

    true: float
    shuffled: float
    copied: float
    n: int

    @property
    def sensitivity(self) -> float:
        return self.shuffled / self.true if self.true > 0 else math.nan

    @property
    def gain_db(self) -> float:
        return 10 * math.log10(self.copied / self.true) if self.true > 0 and self.copied > 0 else math.nan


@torch.no_grad()
def foreseen(
    tokenizer: LatentActionTokenizer,
    present: np.ndarray,
    latents: np.ndarray,
    there: np.ndarray,
    *,
    camera: np.ndarray | None = None,
) -> np.ndarray:
    """Present frames (N, V, H, W, 3) uint8 and latents (N, tokens * A) -> the next frames, float in [0, 1], same shape.

    camera (N, V, 4): how each camera moves.
    """
    found = []
    for start in range(0, len(present), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        told = torch.from_numpy(latents[rows]).float().unflatten(1, (tokenizer.config.tokens, -1))
        motion = None if camera is None else torch.from_numpy(camera[rows])[:, :, None]
        part = torch.from_numpy(present[rows])[:, :, None]
        decoded = tokenizer.decode(part, told, camera=motion, view_mask=mask_of(there, len(part)))
        found.append(((decoded[:, :, 0] + 1) / 2).clamp(0, 1))
    return torch.cat(found).numpy()


def foresight(tokenizer: LatentActionTokenizer, windows: Readings, *, seed: int) -> Foresight:
    """Errors on the views that are there. The camera's motion, if the tokenizer knows it, is the window's own in both."""
    present, later = windows.frames[:, :, 0], windows.frames[:, :, 1]
    order = derangement(len(windows), seed=seed)
    told = {"true": windows.latents, "shuffled": windows.latents[order]}
    errors = {
        name: _changed_error(
            foreseen(tokenizer, present, latents, windows.there, camera=windows.camera), later, present, windows.there
        )
        for name, latents in told.items()
    }
    copied = _changed_error(present.astype(np.float32) / 255, later, present, windows.there)
    return Foresight(**errors, copied=copied, n=len(windows))


def _changed_error(predicted: np.ndarray, later: np.ndarray, present: np.ndarray, there: np.ndarray) -> float:
    real, first = (frames[:, there].astype(np.float32) / 255 for frames in (later, present))
    return squared_error(predicted[:, there], real, where=changed_pixels(real, first))


def swapped(
    tokenizer: LatentActionTokenizer, windows: Readings, *, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every window's latents drive a window of another task: (rows of the driven windows, the frames that this gives (N, V, H,
    W, 3) uint8, and the latents read from these frames (N, tokens * A))."""
    order = np.random.default_rng(seed).permutation(len(windows))
    partner = order.copy()
    for place in range(len(order)):  # the next window of another task, in a random order
        others = np.flatnonzero(windows.task[np.roll(order, -place - 1)] != windows.task[order[place]])
        partner[place] = np.roll(order, -place - 1)[others[0]] if len(others) else order[place - 1]
    driven = np.empty_like(order)
    driven[order] = partner
    present = windows.frames[driven, :, 0]
    given = foreseen(tokenizer, present, windows.latents, windows.there)
    frames = np.round(given * 255).astype(np.uint8)
    again, _, _ = encoded(tokenizer, np.stack([present, frames], axis=2), windows.there)
    return driven, frames, again


@torch.no_grad()
def jitter_response(tokenizer: LatentActionTokenizer, windows: Readings, *, shake: float, seed: int) -> float:
    """How much latents change when the camera of a still scene shakes by up to `shake` of a side, over how much they vary
    between real motions: 0 is blind to the camera, 1 takes its shaking for action."""
    present = torch.from_numpy(windows.frames[:, :, 0])
    N, V = present.shape[:2]
    draws = np.random.default_rng(seed).uniform(-2 * shake, 2 * shake, (N, 1, 2)).repeat(V, axis=1)
    motion = torch.zeros(N * V, 4)
    motion[:, :2] = torch.from_numpy(draws.reshape(-1, 2)).float()
    pictures = present.flatten(0, 1).permute(0, 3, 1, 2).float()
    moved = moved_camera(pictures, motion).round().clamp(0, 255).byte().permute(0, 2, 3, 1).reshape(present.shape)
    still, shaken = (
        encoded(tokenizer, torch.stack([present, later], dim=2).numpy(), windows.there)[0] for later in (present, moved)
    )
    spread = np.square(windows.latents - windows.latents.mean(axis=0)).sum(axis=1).mean()
    return float(np.sqrt(np.square(shaken - still).sum(axis=1).mean() / max(spread, 1e-12)))
