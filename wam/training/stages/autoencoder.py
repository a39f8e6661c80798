"""The autoencoder stage: a small video tokenizer from the frames of any dataset, with or without actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wam.checkpoint import code_revision
from wam.contracts import Batch
from wam.files import write_json
from wam.tokenizers.autoencoder import Autoencoder, autoencoder_loss
from wam.tokenizers.interface import to_signed
from wam.training.config import TrainConfig
from wam.training.data import make_mixture


class AutoencoderStage:
    """Trains `wam.tokenizers.autoencoder.Autoencoder` to reconstruct frames."""

    def __init__(self, config: TrainConfig) -> None:
        self.mixture, self.aside = make_mixture(config)
        self.autoencoder = Autoencoder()
        self.module: nn.Module = self.autoencoder
        self._sources = [part.root for part in config.data.parts]

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        return autoencoder_loss(self.autoencoder, to_signed(batch.images), generator=generator)

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """PSNR of reconstruction on held-out frames, in dB."""
        if self.aside is None:
            return {}
        frames = to_signed(self.aside.images)
        error = (self.autoencoder.decode(self.autoencoder.encode(frames)) - frames).square().mean() / 4
        return {"reconstruction_psnr": -10 * float(torch.log10(error))}

    def save(self, folder: Path, *, tensors: dict[str, Tensor], provenance: dict[str, Any]) -> None:
        """The averaged weights, scaled so that latents have unit variance on training frames."""
        own = {name: value.clone() for name, value in self.autoencoder.state_dict().items()}
        self.autoencoder.load_state_dict(tensors)
        frames = self.mixture.datasets[0]
        self.autoencoder.calibrate(to_signed(frames.batch(range(min(64, len(frames)))).images))
        self.autoencoder.mark_trained(", ".join(self._sources), code_revision())
        self.autoencoder.save_pretrained(folder)
        write_json(folder / "training.json", provenance)
        self.autoencoder.load_state_dict(own)
