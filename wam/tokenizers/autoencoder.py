"""The small convolutional autoencoder that is trained here: 64 x 64 frames to 8 x 8 x 8 latents, frame by frame.

Pixels are folded 2 x 2 into channels first and unfolded last (cheap on a CPU), then each level halves the sides. The
posterior is a diagonal Gaussian (Kingma & Welling 2014) with a small weight, which keeps latents smooth and of a known scale.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from einops import rearrange
from torch import Tensor, nn

from wam.contracts import expected
from wam.files import write_bytes
from wam.settings import load_settings, missing_file, save_settings
from wam.tokenizers.interface import VideoTokenizer

CONFIG, WEIGHTS = "config.yaml", "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """channels: c of the latents. width: channels at the finest level, twice as many at the others.

    levels: halvings of the sides, so that spatial = 2**levels. blocks: residual blocks per level.
    """

    channels: int = 8
    width: int = 32
    levels: int = 3
    blocks: int = 1

    def __post_init__(self) -> None:
        if min(self.channels, self.levels, self.blocks) < 1 or self.width < 8 or self.width % 8:
            raise expected(
                "an autoencoder with channels, levels and blocks of at least 1 and a width that is a multiple of 8",
                got=f"{self.channels}, {self.levels}, {self.blocks} and {self.width}",
                do="change the autoencoder's settings",
            )


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """config.yaml of a saved autoencoder. sha256: of model.safetensors."""

    autoencoder: AutoencoderConfig
    provenance: dict[str, Any]
    sha256: str


class Autoencoder(VideoTokenizer):
    """Frames to latents and back by small convolutions; every frame of every view by itself (temporal = 1).

    Latents are the posterior's mean, shifted and scaled per channel to zero mean and unit deviation once
    `calibrate` has seen frames. Its provenance says random until `mark_trained`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AutoencoderConfig()
        self.channels, self.spatial, self.temporal = config.channels, 2**config.levels, 1
        self.provenance = {"source": "untrained autoencoder", "revision": None, "random": True}
        widths = [config.width * 2 ** min(level, 1) for level in range(config.levels)]
        down: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, widths[0], 3, padding=1)]
        up: list[nn.Module] = [nn.Conv2d(config.channels, widths[-1], 3, padding=1)]
        for level, width in enumerate(widths):
            if level:
                down.append(nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1))
            down += [_Residual(width) for _ in range(config.blocks)]
        for level, width in reversed(list(enumerate(widths))):
            up += [_Residual(width) for _ in range(config.blocks)]
            if level:
                up += [nn.Conv2d(width, 4 * widths[level - 1], 3, padding=1), nn.PixelShuffle(2)]
        self.encoder = nn.Sequential(*down, _norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 2 * config.channels, 1))
        self.decoder = nn.Sequential(
            *up, _norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 12, 3, padding=1), nn.PixelShuffle(2)
        )
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))

    def encode(self, frames: Tensor) -> Tensor:
        mean, _ = self.posterior(frames)
        return (mean - self.mean) / self.std

    def decode(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        return self.reconstruct(latents * self.std + self.mean)

    def posterior(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, both (B, V, T, h, w, c), before the shift and scale."""
        self.check_frames(frames)
        views, time = frames.shape[1:3]
        moments = self.encoder(rearrange(frames, "B V T H W C -> (B V T) C H W"))
        mean, logvar = rearrange(moments, "(B V T) (two C) H W -> two B V T H W C", two=2, V=views, T=time)
        return mean, logvar.clamp(-20, 10)

    def reconstruct(self, z: Tensor) -> Tensor:
        """Frames from latents before the shift and scale."""
        frames = self.decoder(rearrange(z, "B V T H W C -> (B V T) C H W"))
        return rearrange(frames, "(B V T) C H W -> B V T H W C", V=z.shape[1], T=z.shape[2])

    @torch.no_grad()
    def calibrate(self, frames: Tensor) -> None:
        """Set the latents' shift and scale from the posterior means of `frames`; call once, at the end of training."""
        mean, _ = self.posterior(frames)
        mean = mean.flatten(0, -2)
        self.mean.copy_(mean.mean(dim=0))
        self.std.copy_(mean.std(dim=0).clamp_min(1e-4))

    def mark_trained(self, source: str, revision: str | None = None) -> None:
        """Say in the provenance what the weights were trained on."""
        self.provenance = {"source": source, "revision": revision, "random": False}

    def save_pretrained(self, folder: Path) -> None:
        """Write model.safetensors and config.yaml (settings, provenance, sha256 of the weights)."""
        from safetensors.torch import save

        folder = Path(folder)
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()})
        write_bytes(folder / WEIGHTS, content)
        saved = _Saved(autoencoder=self.config, provenance=self.provenance, sha256=hashlib.sha256(content).hexdigest())
        save_settings(saved, folder / CONFIG)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Autoencoder:
        """The autoencoder saved in `folder`; WamError where a file is missing or its bytes have changed."""
        from safetensors.torch import load

        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise missing_file(folder / CONFIG, "an autoencoder's")
        saved = load_settings(_Saved, folder / CONFIG)
        if not (folder / WEIGHTS).is_file():
            raise missing_file(folder / WEIGHTS, "the autoencoder's weights")
        content = (folder / WEIGHTS).read_bytes()
        if (digest := hashlib.sha256(content).hexdigest()) != saved.sha256:
            raise expected(
                f"{folder / WEIGHTS} with sha256 {saved.sha256[:12]}",
                got=digest[:12],
                do="the file has changed since it was written: copy or train it again",
            )
        tokenizer = cls(saved.autoencoder)
        tokenizer.load_state_dict(load(content))
        tokenizer.provenance = dict(saved.provenance)
        return tokenizer


def autoencoder_loss(
    tokenizer: Autoencoder, frames: Tensor, *, kl_weight: float = 1e-4, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Losses of a batch of frames (B, V, T, H, W, 3) in [-1, 1]; ``loss`` is the one to minimise.

    reconstruction: mean absolute error of a posterior sample's frames plus that of their differences between neighbouring
    pixels, which keeps thin objects sharp. kl: mean over latent elements, in nats.
    """
    mean, logvar = tokenizer.posterior(frames)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    decoded = tokenizer.reconstruct(mean + (0.5 * logvar).exp() * noise)
    edges = [nnf.l1_loss(decoded.diff(dim=side), frames.diff(dim=side)) for side in (3, 4)]
    reconstruction = nnf.l1_loss(decoded, frames) + edges[0] + edges[1]
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return {"loss": reconstruction + kl_weight * kl, "reconstruction": reconstruction, "kl": kl}


class _Residual(nn.Module):
    """Norm, SiLU, 3 x 3 convolution, twice, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _norm(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            _norm(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, width)
