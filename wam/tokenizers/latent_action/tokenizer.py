"""`LatentActionTokenizer`: two frames of any video to the latent action between them, and the present with one to what comes.

    tokenizer = LatentActionTokenizer.from_pretrained("tokenizers/latent_action")
    found = tokenizer.encode(frames)                       # (B, V, T, H, W, 3), any cameras, uint8 or in [-1, 1]
    found.latents, found.codes                             # (B, K, A) float and (B, K, levels) int64
    tokenizer.decode(frames[:, :, :1], found.latents)      # (B, V, T - 1, H, W, 3) in [-1, 1]

K is (T - 1) * tokens: `tokens` latents for each pair of neighbouring frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from wam.checkpoint import Checkpoint, code_revision
from wam.contracts import expected
from wam.settings import build, to_plain
from wam.tokenizers.interface import to_signed
from wam.tokenizers.latent_action.blocks import moved_camera
from wam.tokenizers.latent_action.config import LatentActionConfig
from wam.tokenizers.latent_action.decoder import ForwardModel
from wam.tokenizers.latent_action.encoder import InverseDynamics
from wam.tokenizers.quantizers import make_quantizer


@dataclass(frozen=True, kw_only=True)
class LatentActions:
    """latents (B, K, A); codes (B, K, levels) int64, None where latents are continuous; camera (B, V, T - 1, 4): right,
    down, zoom and turn of each camera, None without that stream. loss: what the quantiser asks for in training."""

    latents: Tensor
    codes: Tensor | None
    camera: Tensor | None
    loss: Tensor


class LatentActionTokenizer(nn.Module):
    """An inverse-dynamics encoder, a quantiser and a forward decoder of pixels.

    provenance: {random, ...}; random until it was trained and saved.
    """

    def __init__(self, config: LatentActionConfig) -> None:
        super().__init__()
        config.validate()
        self.config = config
        self.provenance: dict[str, Any] = {"source": "untrained latent-action tokenizer", "random": True}
        self.cameras: tuple[str, ...] = ()
        self.quantizer = make_quantizer(config.quantizer)
        self.encoder = InverseDynamics(
            size=config.image_size,
            views=config.views,
            tokens=config.tokens,
            inputs=self.quantizer.inputs,
            base=config.base,
            width=config.width,
            context=config.context,
            camera=config.camera,
        )
        self.decoder = ForwardModel(
            3,
            size=config.image_size,
            views=config.views,
            latent_width=self.latent_width,
            base=config.base,
            width=config.width,
        )

    @property
    def latent_width(self) -> int:
        """Numbers that all latents of one pair hold together."""
        return self.config.tokens * self.quantizer.dim

    def encode(self, frames: Tensor, *, view_mask: Tensor | None = None) -> LatentActions:
        """Frames (B, V, T, H, W, 3), uint8 or float in [-1, 1], with V up to the views it knows and T of at least 2."""
        pictures, there = self.prepare(frames, view_mask)
        if pictures.shape[2] < 2:
            raise expected("at least two frames", got=pictures.shape[2], do="give the present and what came after it")
        return self.quantized(pictures, there)

    def quantized(self, pictures: Tensor, there: Tensor, *, generator: torch.Generator | None = None) -> LatentActions:
        """The same for pictures (B, V, T, 3, H, W) and which views are there (B, V)."""
        z, camera = self.encoder(pictures, there)
        found = self.quantizer(rearrange(z, "b k n i -> b (k n) i"), generator=generator)
        return LatentActions(latents=found.latents, codes=found.codes, camera=camera, loss=found.loss)

    def decode(
        self, present: Tensor, latents: Tensor, *, camera: Tensor | None = None, view_mask: Tensor | None = None
    ) -> Tensor:
        """The frames (B, V, K / tokens, H, W, 3) in [-1, 1] that latents (B, K, A) lead to from a present frame
        (B, V, 1, H, W, 3), one after another. Views that are not there stay as they are.

        camera (B, V, K / tokens, 4): how each camera moves; by default it stands still.
        """
        pictures, there = self.prepare(present, view_mask)
        tokens, dim = self.config.tokens, self.quantizer.dim
        if latents.ndim != 3 or latents.shape[-1] != dim or latents.shape[1] % tokens:
            raise expected(
                f"latents of shape (B, K, {dim}) with K a multiple of {tokens}",
                got=f"shape {tuple(latents.shape)}",
                do="decode with the tokenizer that encoded them",
            )
        picture, frames = pictures[:, :, -1], []
        for step, latent in enumerate(rearrange(latents, "b (k n) a -> k b (n a)", n=tokens)):
            motion = None if camera is None else camera[:, :, step]
            picture = self.foresee(picture, latent, there, camera=motion)
            frames.append(picture)
        return rearrange(torch.stack(frames, dim=2), "b v k c h w -> b v k h w c")

    def foresee(
        self,
        pictures: Tensor,
        latents: Tensor,
        there: Tensor,
        *,
        camera: Tensor | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """One step: pictures (B, V, 3, H, W) and latents (B, latent width) -> the next pictures, same shape.

        camera (B, V, 4); extra (B, width) is added to the condition.
        """
        rows, slots = there.nonzero(as_tuple=True)
        chosen = pictures[rows, slots]
        if camera is not None:
            chosen = moved_camera(chosen, camera[rows, slots])
        found = self.decoder(chosen, slots, latents[rows], extra=None if extra is None else extra[rows])
        return pictures.float().index_put((rows, slots), found)

    def prepare(self, frames: Tensor, view_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Frames as pictures (B, V, T, 3, H, W) in [-1, 1], and which views are there (B, V) bool; checked."""
        side, views = self.config.image_size, self.config.views
        if frames.ndim != 6 or frames.shape[3:] != (side, side, 3) or not 1 <= frames.shape[1] <= views:
            raise expected(
                f"frames of shape (B, V, T, {side}, {side}, 3) with V from 1 to {views}",
                got=f"shape {tuple(frames.shape)}",
                do="resize them, or train a tokenizer for these cameras",
            )
        signed = to_signed(frames) if frames.dtype == torch.uint8 else frames
        there = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device) if view_mask is None else view_mask
        if not bool(there.any(dim=1).all()):
            raise expected("at least one view of every window", got="a window without", do="name cameras that exist")
        return rearrange(signed, "b v t h w c -> b v t c h w"), there

    def latents_of(self, codes: Tensor) -> Tensor:
        """Codes (B, K, levels) -> latents (B, K, A)."""
        return self.quantizer.latents_of(codes)

    def save_pretrained(
        self,
        folder: Path,
        *,
        tensors: Mapping[str, Tensor] | None = None,
        provenance: Mapping[str, Any] | None = None,
        statistics: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint folder, with other `tensors` of its names if given. Without a provenance it keeps its own, so
        that random weights stay named so."""
        Checkpoint(
            config={"latent_action": to_plain(self.config), "cameras": list(self.cameras)},
            tensors=self.state_dict() if tensors is None else tensors,
            statistics=statistics or {},
            provenance={"code": code_revision(), **(self.provenance if provenance is None else provenance)},
        ).save(Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> LatentActionTokenizer:
        """The tokenizer of a checkpoint folder, in evaluation mode. Raises WamError if a file is missing, damaged or of
        another model."""
        return cls.from_checkpoint(Checkpoint.load(Path(folder)), where=str(folder))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, where: str = "the checkpoint") -> LatentActionTokenizer:
        if "latent_action" not in checkpoint.config:
            raise expected(
                f"a latent-action tokenizer in {where}",
                got=f"a checkpoint of {', '.join(checkpoint.config)}",
                do="name a folder that stage=latent-action wrote",
            )
        tokenizer = cls(build(LatentActionConfig, checkpoint.config["latent_action"]))
        missing, unknown = tokenizer.load_state_dict(dict(checkpoint.tensors), strict=False)
        if missing or unknown:
            raise expected(
                f"weights for every part of the tokenizer in {where}",
                got=f"{len(missing)} missing ({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})",
                do="use the version of wam that its provenance names",
            )
        tokenizer.provenance = dict(checkpoint.provenance)
        tokenizer.cameras = tuple(checkpoint.config.get("cameras", ()))
        return tokenizer.eval()


def present_copies(present: Tensor, steps: int) -> Tensor:
    """The prediction that nothing moves: (B, V, 1, H, W, 3) -> (B, V, steps, H, W, 3)."""
    return repeat(present[:, :, -1], "b v h w c -> b v k h w c", k=steps)
