"""Tiny autoencoders into the latent spaces of large image models (TAESD, TAEF2: github.com/madebyollin/taesd, MIT).

The pair of safetensors files is read as it is published; channels and middle blocks are found from the weights' shapes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from wam.contracts import expected
from wam.settings import missing_file
from wam.tokenizers.frozen import Frozen
from wam.tokenizers.interface import VideoTokenizer
from wam.typed import first_line


class TinyAutoencoder(Frozen, VideoTokenizer):
    """A frozen pair of small networks, 8 pixels per latent; each frame by itself.

    Takes the published files; their weights are kept in float32. Raises WamError for a missing or unfitting file.
    """

    def __init__(self, encoder: Path, decoder: Path, *, images_at_once: int = 64) -> None:
        super().__init__()
        weights = {"encoder": _load(Path(encoder)), "decoder": _load(Path(decoder))}
        network = nn.ModuleDict({"encoder": _encoder(weights["encoder"]), "decoder": _decoder(weights["decoder"])})
        for name, path in (("encoder", encoder), ("decoder", decoder)):
            try:
                network[name].load_state_dict(weights[name])
            except RuntimeError as error:
                raise expected(
                    f"weights of a tiny autoencoder's {name} in {path}",
                    got=first_line(error),
                    do="give the files as published",
                ) from error
        self._hold(network)
        self.channels, self.spatial, self.temporal = weights["encoder"]["14.bias"].shape[0], 8, 1
        self.images_at_once = images_at_once
        digest = hashlib.sha256(Path(encoder).read_bytes() + Path(decoder).read_bytes()).hexdigest()
        self.provenance = {"source": Path(encoder).name, "revision": f"sha256:{digest}", "random": False}

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        self.check_frames(frames)
        images = rearrange(frames.to(self.dtype), "B V T H W C -> (B V T) C H W")
        z = torch.cat([self.network["encoder"](part * 0.5 + 0.5) for part in images.split(self.images_at_once)])
        return rearrange(z, "(B V T) C H W -> B V T H W C", V=frames.shape[1], T=frames.shape[2]).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        z = rearrange(latents.to(self.dtype), "B V T H W C -> (B V T) C H W")
        images = torch.cat([self.network["decoder"](part) * 2 - 1 for part in z.split(self.images_at_once)])
        return rearrange(images, "(B V T) C H W -> B V T H W C", V=latents.shape[1], T=latents.shape[2]).float()


class _Block(nn.Module):
    """Three 3 x 3 convolutions around a skip; `pool` mixes each pixel against image-wide norms first."""

    def __init__(self, width: int, *, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))
        self.pool = (
            nn.Sequential(
                nn.Conv2d(width, 4 * width, 1, bias=False),
                nn.GroupNorm(4, 4 * width),
                nn.ReLU(),
                nn.Conv2d(4 * width, width, 1, bias=False),
            )
            if pool
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def _encoder(weights: dict[str, Tensor]) -> nn.Sequential:
    width, channels = weights["0.weight"].shape[0], weights["14.weight"].shape[0]
    layers: list[nn.Module] = [_conv(3, width), _Block(width, pool=False)]
    for level in range(3):
        layers.append(_conv(width, width, stride=2, bias=False))
        layers += [_Block(width, pool=level == 2 and "11.pool.0.weight" in weights) for _ in range(3)]
    return nn.Sequential(*layers, _conv(width, channels))


def _decoder(weights: dict[str, Tensor]) -> nn.Sequential:
    width, channels = weights["1.weight"].shape[:2]
    layers: list[nn.Module] = [_Clamp(), _conv(channels, width), nn.ReLU()]
    for level in range(3):
        layers += [_Block(width, pool=level == 0 and "3.pool.0.weight" in weights) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _conv(width, width, bias=False)]
    return nn.Sequential(*layers, _Block(width, pool=False), _conv(width, 3))


def _load(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise missing_file(path, "a tiny autoencoder's file")
    try:
        weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise expected(f"safetensors in {path}", got=first_line(error), do="download the file again") from error
    first, last = ("0.weight", "14.weight") if "0.weight" in weights else ("1.weight", "19.weight")
    if first not in weights or last not in weights:
        raise expected(
            f"a tiny autoencoder's layers in {path}", got=f"{len(weights)} other weights", do="give the pair"
        )
    return weights
