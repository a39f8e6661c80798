"""Codes of a human clip on the robot clip that is aligned with it: does the robot do what the hand did?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wam.contracts import expected
from wam.data.convert.frames import cover, read_video
from wam.data.convert.videos import find_videos
from wam.data.video import probe
from wam.evaluation.latent_action.config import PairsConfig
from wam.evaluation.latent_action.driving import foreseen
from wam.evaluation.latent_action.readings import encoded
from wam.evaluation.video_metrics import changed_pixels, squared_error
from wam.tokenizers.latent_action import LatentActionTokenizer


@dataclass(frozen=True, kw_only=True)
class AlignedPairs:
    """N windows of aligned clips. human, robot (N, 2, H, W, 3) uint8: the present and the frame a gap later; clip (N,)."""

    human: np.ndarray
    robot: np.ndarray
    clip: np.ndarray

    def __len__(self) -> int:
        return len(self.human)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Copied over transferred squared error on the robot's changed pixels: with the human's latents (gain), with those of
    another moment of the human clip, and with the robot clip's own. predicted (N, H, W, 3) uint8: with the human's."""

    gain: float
    shuffled: float
    own: float
    predicted: np.ndarray


def aligned_pairs(config: PairsConfig, *, seconds: float, size: int) -> AlignedPairs:
    """Windows of every pair whose frames lie `seconds` apart, brought to `size` pixels. Raises WamError where no pair is."""
    humans = {path.stem: path for path in find_videos(Path(config.human))}
    found: dict[str, list[np.ndarray]] = {"human": [], "robot": []}
    names: list[str] = []
    for path in find_videos(Path(config.robot)):
        stem = max((s for s in humans if path.stem.startswith(s)), key=len, default="")
        if not stem or (config.clips and stem not in config.clips):
            continue
        clips = [np.stack([cover(frame, (size, size)) for frame in read_video(file)]) for file in (humans[stem], path)]
        gap, length = max(1, round(seconds * probe(path).fps)), min(map(len, clips))
        starts = np.arange(0, length - gap, config.every)
        for kind, clip in zip(found, clips, strict=True):
            found[kind].append(np.stack([clip[starts], clip[starts + gap]], axis=1))
        names += [stem] * len(starts)
    if not names:
        wanted = f"robot clips in {config.robot} named after human clips in {config.human}"
        raise expected(wanted, got="none", do="check both folders and `pairs.clips`")
    return AlignedPairs(
        human=np.concatenate(found["human"]), robot=np.concatenate(found["robot"]), clip=np.array(names)
    )


def transfer(tokenizer: LatentActionTokenizer, pairs: AlignedPairs, *, slot: int) -> Transfer:
    """Drive the robot's present with latents of the human clip, in the view slot given."""
    there = np.arange(len(tokenizer.cameras)) == slot
    placed = {kind: _in_slot(getattr(pairs, kind), slot, len(there)) for kind in ("human", "robot")}
    latents = {kind: encoded(tokenizer, frames, there) for kind, frames in placed.items()}
    other = np.arange(len(pairs))
    for clip in np.unique(pairs.clip):
        rows = np.flatnonzero(pairs.clip == clip)
        other[rows] = np.roll(rows, len(rows) // 2)
    present = placed["robot"][:, :, 0]
    told = {"gain": latents["human"][0], "shuffled": latents["human"][0][other], "own": latents["robot"][0]}
    camera = latents["human"][2]
    predicted = {
        name: foreseen(tokenizer, present, z, there, camera=latents["robot"][2] if name == "own" else camera)[:, slot]
        for name, z in told.items()
    }
    first, real = (pairs.robot[:, step].astype(np.float32) / 255 for step in (0, 1))
    where = changed_pixels(real, first)
    copied = squared_error(first, real, where=where)
    gains = {name: copied / squared_error(frames, real, where=where) for name, frames in predicted.items()}
    return Transfer(**gains, predicted=np.round(predicted["gain"] * 255).astype(np.uint8))


def _in_slot(frames: np.ndarray, slot: int, views: int) -> np.ndarray:
    """(N, 2, H, W, 3) -> (N, V, 2, H, W, 3), black in the other slots."""
    found = np.zeros((len(frames), views, *frames.shape[1:]), np.uint8)
    found[:, slot] = frames
    return found
