"""Frozen encoders of pictures, as targets and as baselines: real weights by name, never random ones in silence."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import expected
from wam.settings import missing_file
from wam.tokenizers.autoencoder import Autoencoder
from wam.tokenizers.frozen import Frozen, not_on_disk, read_provenance, refuse_missing
from wam.tokenizers.interface import VideoTokenizer
from wam.tokenizers.latent_action.config import FeatureConfig
from wam.tokenizers.tiny_autoencoder import TinyAutoencoder

CAFFE_MEAN = (104.0, 117.0, 123.0)
"""Blue, green, red, of 255."""


class FrozenFeatures(Frozen, abc.ABC):
    """channels: of the features. provenance: {source, revision, random}. size: side that pictures are resized to, or 0."""

    channels: int
    size: int = 0

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (P, 3, H, W) in [-1, 1] -> features (P, channels, h, w) in float32."""
        with torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
            pictures = pictures.float()
            if self.size and pictures.shape[-1] != self.size:
                side = (self.size, self.size)
                pictures = F.interpolate(pictures, size=side, mode="bilinear", antialias=True, align_corners=False)
            return self.compute(pictures).float()

    @abc.abstractmethod
    def compute(self, pictures: Tensor) -> Tensor:
        """The same at the encoder's own size."""


class TokenizerFeatures(FrozenFeatures):
    """The latents of a video tokenizer: a tiny autoencoder, or one that was trained here on pictures alone."""

    def __init__(self, tokenizer: VideoTokenizer, *, size: int = 0) -> None:
        super().__init__()
        self._hold(tokenizer)
        self.channels, self.provenance, self.size = tokenizer.channels, tokenizer.provenance, size

    def compute(self, pictures: Tensor) -> Tensor:
        latents = self.network.encode(rearrange(pictures, "p c h w -> p 1 1 h w c"))
        return rearrange(latents, "p 1 1 h w c -> p c h w")


class TransformersFeatures(FrozenFeatures):
    """Patch features of a vision model of transformers (DINOv2, DINOv3, ViT, SigLIP, ...), loaded by its own class."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, revision: str | None = None, *, size: int = 0) -> None:
        super().__init__()
        from transformers import AutoModel

        try:
            network, report = AutoModel.from_pretrained(name, revision=revision, output_loading_info=True)
        except (OSError, ValueError) as error:
            raise not_on_disk("a vision model", name, revision, error) from error
        refuse_missing("the vision model", name, report["missing_keys"])
        self.provenance = read_provenance(name, revision)
        self._set_up(network, size)

    @classmethod
    def from_network(cls, network: nn.Module, *, size: int = 0) -> TransformersFeatures:
        """Around a network that was made by the caller; its weights count as random."""
        features = cls.__new__(cls)
        nn.Module.__init__(features)
        features.provenance = {"source": type(network).__name__, "revision": None, "random": True}
        features._set_up(network, size)
        return features

    def _set_up(self, network: Any, size: int) -> None:
        network = getattr(network, "vision_model", network)
        config = getattr(network.config, "vision_config", network.config)
        self._hold(network)
        self.channels, self.patch = config.hidden_size, config.patch_size
        self.size = size or config.image_size
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406))[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225))[:, None, None], persistent=False)

    def compute(self, pictures: Tensor) -> Tensor:
        side = pictures.shape[-1] // self.patch
        scaled = ((pictures + 1) / 2 - self.mean) / self.std
        tokens = self.network(pixel_values=scaled.to(self.dtype)).last_hidden_state
        return rearrange(
            tokens[:, -(side**2) :], "p (h w) c -> p c h w", h=side
        )  # class and register tokens come first


class SqueezeNetFeatures(FrozenFeatures):
    """SqueezeNet 1.0 (Iandola et al. 2016) up to its sixth fire module, from an .npz in Caffe's layout: 384 channels at about
    an eighth of the sides' length."""

    def __init__(self, path: Path, *, size: int = 128) -> None:
        super().__init__()
        if not Path(path).is_file():
            raise missing_file(Path(path), "SqueezeNet's weights")
        with np.load(path, allow_pickle=False) as stored:
            self._hold(_SqueezeNet({name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}))
        self.channels, self.size = self.network.channels, size or 128
        self.provenance = {"source": Path(path).name, "revision": None, "random": False}

    def compute(self, pictures: Tensor) -> Tensor:
        return self.network(pictures)


def make_features(config: FeatureConfig) -> FrozenFeatures:
    """The frozen encoder that the config names. Raises WamError where its weights are not."""
    if not config.name:
        raise expected(f"a name for the {config.kind} encoder", got="none", do="set `features.name` to its weights")
    if config.kind == "transformers":
        return TransformersFeatures(config.name, config.revision, size=config.size)
    if config.kind == "squeezenet":
        return SqueezeNetFeatures(Path(config.name), size=config.size)
    if config.kind == "tiny":
        files = (Path(f"{config.name}_{half}.safetensors") for half in ("encoder", "decoder"))
        return TokenizerFeatures(TinyAutoencoder(*files), size=config.size)
    return TokenizerFeatures(Autoencoder.from_pretrained(Path(config.name)), size=config.size)


class _SqueezeNet(nn.Module):
    """The published weights as convolutions; pictures come in as RGB in [-1, 1]."""

    FIRES = (2, 3, 4, 5, 6)
    POOL_AFTER = 4

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        names = ["conv1", *(f"fire{n}/{part}" for n in self.FIRES for part in ("squeeze", "expand1x1", "expand3x3"))]
        self.weights = nn.ParameterDict()
        for name in names:
            for part in ("weight", "bias"):
                if f"{name}.{part}" not in weights:
                    raise expected(
                        f"SqueezeNet's {name}.{part}",
                        got="an archive without it",
                        do="give the weights of SqueezeNet 1.0",
                    )
                self.weights[f"{name.replace('/', '_')}_{part}"] = nn.Parameter(weights[f"{name}.{part}"])
        self.channels = int(weights[f"fire{self.FIRES[-1]}/expand3x3.bias"].shape[0]) * 2

    def forward(self, pictures: Tensor) -> Tensor:
        h = (pictures.flip(1) + 1) * 127.5 - pictures.new_tensor(CAFFE_MEAN)[:, None, None]
        h = F.max_pool2d(F.relu(self._convolved(h, "conv1", stride=2)), 3, stride=2, ceil_mode=True)
        for fire in self.FIRES:
            squeezed = F.relu(self._convolved(h, f"fire{fire}_squeeze"))
            wide = [self._convolved(squeezed, f"fire{fire}_expand{k}x{k}", padding=k // 2) for k in (1, 3)]
            h = F.relu(torch.cat(wide, dim=1))
            if fire == self.POOL_AFTER:
                h = F.max_pool2d(h, 3, stride=2, ceil_mode=True)
        return h

    def _convolved(self, h: Tensor, name: str, **options: int) -> Tensor:
        return F.conv2d(h, self.weights[f"{name}_weight"], self.weights[f"{name}_bias"], **options)
