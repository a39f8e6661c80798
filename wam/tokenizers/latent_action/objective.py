"""What trains a latent-action tokenizer: foresee the next frame, its features or its flow from the present and a few codes."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import Batch, expected
from wam.tokenizers.latent_action.augment import coloured, cropped, flipped, shaken
from wam.tokenizers.latent_action.config import LatentActionConfig
from wam.tokenizers.latent_action.decoder import ForwardModel
from wam.tokenizers.latent_action.labels import LabelHeads
from wam.tokenizers.latent_action.targets import Target, make_target
from wam.tokenizers.latent_action.tokenizer import LatentActions, LatentActionTokenizer
from wam.tokenizers.text import TextConfig, make_text_encoder

CHANGED = 0.2
"""A pixel in [-1, 1] has changed when a channel differs by more than this."""


class LatentActionObjective(nn.Module):
    """The tokenizer with what only training needs: the target's own decoder, sentence, latents beside, heads for labels."""

    def __init__(self, config: LatentActionConfig, *, action_dim: int = 0, state_dim: int = 0) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = LatentActionTokenizer(config)
        self.target: Target | None = make_target(config)
        self.foresight: ForwardModel | None = None
        if self.target is not None:
            self.foresight = ForwardModel(
                self.target.channels,
                size=self.target.side(config.image_size),
                views=config.views,
                latent_width=self.tokenizer.latent_width,
                base=config.base if self.target.copies is False else config.width // 2,
                width=config.width,
                fold=self.target.fold,
                outputs=self.target.outputs,
                copies=self.target.copies,
            )
        self.text, self.from_text = None, None
        if config.language:
            self.text = make_text_encoder(TextConfig(width=64))
            self.from_text = nn.Linear(64, config.width)
        self._beside: list[LatentActionTokenizer] = []  # in a list: frozen, so neither trained nor saved
        self.from_beside: nn.Linear | None = None
        if config.beside:
            other = LatentActionTokenizer.from_pretrained(Path(config.beside)).requires_grad_(False)
            if other.config.image_size != config.image_size or other.config.views < config.views:
                raise expected(
                    f"a tokenizer beside of {config.image_size} pixels and {config.views} views",
                    got=f"{other.config.image_size} and {other.config.views}",
                    do="train it on the same cameras",
                )
            self._beside.append(other)
            self.from_beside = nn.Linear(other.latent_width, config.width)
        wanted = config.labels.share > 0 and action_dim > 0
        self.labels = (
            LabelHeads(config, latent_width=self.tokenizer.latent_width, action_dim=action_dim, state_dim=state_dim)
            if wanted
            else None
        )

    def losses(self, batch: Batch, *, generator: torch.Generator, labelled: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of a batch with a future; `loss` is minimised. labelled (B,) bool: whose actions may be seen."""
        if batch.future is None:
            raise expected("windows with frames to come", got="none", do="set future offsets")
        if batch.future_mask is not None and not bool(batch.future_mask.all()):
            whole = batch.future_mask.all(dim=1)
            if int(whole.sum()) >= 2:
                batch, labelled = batch[whole.nonzero()[:, 0].tolist()], None if labelled is None else labelled[whole]
        assert batch.future is not None
        frames = torch.cat([batch.images[:, :, -1:], batch.future], dim=2)
        pictures, there = self.tokenizer.prepare(frames, batch.view_mask)
        augment = self.config.augment
        if self.training:
            pictures = shaken(flipped(pictures, there, generator), augment, generator)
            seen = coloured(cropped(pictures, augment.shift, generator), augment.colour, generator)
            pictures = coloured(cropped(pictures, augment.shift, generator), augment.decoder_colour, generator)
        else:
            seen = pictures
        found = self.tokenizer.quantized(seen, there, generator=generator)
        latents = rearrange(found.latents, "b (k n) a -> b k (n a)", n=self.config.tokens)
        extra = self._extra(batch, seen, there, generator)
        losses = self._foreseen(pictures, there, latents, found, extra)
        total = losses["foreseen"] + losses.get("pixels", 0) + found.loss
        losses["quantizer"] = found.loss
        if self.labels is not None:
            own = self.labels.losses(batch, latents, labelled)
            losses |= own
            total = total + sum(own.values())
        losses["perplexity"] = torch.tensor(self.tokenizer.quantizer.health.perplexity)
        return {"loss": total, **losses}

    def _foreseen(
        self, pictures: Tensor, there: Tensor, latents: Tensor, found: LatentActions, extra: Tensor | None
    ) -> dict[str, Tensor]:
        """Errors of every pair's later frame, given the true earlier one."""
        K = latents.shape[1]
        present = rearrange(pictures[:, :, :-1], "b v k c h w -> (b k) v c h w")
        later = rearrange(pictures[:, :, 1:], "b v k c h w -> (b k) v c h w")
        flat = latents.flatten(0, 1)
        there = there.repeat_interleave(K, 0)
        extra = None if extra is None else extra.repeat_interleave(K, 0)
        camera = None if found.camera is None else rearrange(found.camera, "b v k m -> (b k) v m")
        rows, slots = there.nonzero(as_tuple=True)
        read = flat if self.target is None else flat.detach()
        shown = extra if self.target is None or extra is None else extra.detach()
        still = camera if self.target is None or camera is None else camera.detach()
        predicted = self.tokenizer.foresee(present, read, there, camera=still, extra=shown)
        pixels = self._error(predicted[rows, slots], later[rows, slots], present[rows, slots])
        if self.target is None:
            return {"foreseen": pixels}
        assert self.foresight is not None
        moved = present[rows, slots]
        if camera is not None:
            from wam.tokenizers.latent_action.blocks import moved_camera

            moved = moved_camera(moved, camera[rows, slots])
        signal = self.target.inputs(moved)
        drawn = self.foresight(signal, slots, flat[rows], extra=None if extra is None else extra[rows])
        return {"foreseen": F.mse_loss(drawn, self.target.values(moved, later[rows, slots])), "pixels": pixels}

    def _error(self, predicted: Tensor, real: Tensor, present: Tensor) -> Tensor:
        """Squared error (P, 3, H, W), weighted where pixels change."""
        error = (predicted - real).square().mean(dim=1)
        if self.config.changed:
            moved = (real - present).abs().amax(dim=1) > CHANGED
            error = error * (1 + self.config.changed * moved)
        return 10 * error.mean()

    def _extra(self, batch: Batch, seen: Tensor, there: Tensor, generator: torch.Generator) -> Tensor | None:
        """What the decoder is shown besides latents: sentence and latents of the tokenizer beside, (B, width)."""
        parts = []
        if self.text is not None and self.from_text is not None:
            words, mask = self.text(batch.instruction or ("",) * batch.size)
            parts.append(self.from_text((words * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)))
        if self.from_beside is not None:
            other = self._beside[0].to(seen.device)
            with torch.no_grad():
                latents = other.quantized(seen, there).latents
            pairs = rearrange(latents, "b (k n) a -> b k (n a)", n=other.config.tokens)
            parts.append(self.from_beside(pairs).mean(dim=1))
        if not parts:
            return None
        extra = torch.stack(parts).sum(dim=0)
        if self.training:
            shown = (torch.rand(len(extra), 1, generator=generator) < self.config.keep).to(extra.device)
            extra = extra * shown
        return extra
