"""Frozen VAEs of diffusers by name: the class is read from config.json, latents are scaled to about unit deviation."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from wam.contracts import expected
from wam.tokenizers.frozen import Frozen, not_on_disk, read_provenance, refuse_missing
from wam.tokenizers.interface import VideoTokenizer

# class name in config.json -> does it take video (C T H W) or images (C H W)
_CLASSES = {
    "AutoencoderKL": False,
    "AutoencoderTiny": False,
    "AutoencoderKLWan": True,
    "AutoencoderKLLTXVideo": True,
    "AutoencoderKLCosmos": True,
}


class DiffusersVae(Frozen, VideoTokenizer):
    """AutoencoderKL, AutoencoderTiny, AutoencoderKLWan, AutoencoderKLLTXVideo or AutoencoderKLCosmos, frozen.

    Latents are the posterior's mode, shifted and scaled by the config's latents_mean and latents_std, else by its
    scaling_factor and shift_factor. Views are encoded apart. `clips_at_once` images or clips go through together.

    Raises WamError where the weights are not on this machine, are incomplete, or are of another class. Only safetensors
    are read. `from_network` wraps a network made in code, whose provenance says random.
    """

    def __init__(
        self, name_or_path: str, revision: str | None = None, *, subfolder: str = "", clips_at_once: int = 64
    ) -> None:
        super().__init__()
        from safetensors import SafetensorError

        try:
            network, report = _read(name_or_path, revision, subfolder)
        except (OSError, ValueError, ImportError, SafetensorError, RuntimeError) as error:
            raise not_on_disk("the video tokenizer", name_or_path, revision, error) from error
        refuse_missing("the video tokenizer", name_or_path, report["missing_keys"])
        self._set_up(network, clips_at_once)
        self.provenance = read_provenance(name_or_path, revision)

    @classmethod
    def from_network(cls, network: nn.Module, *, clips_at_once: int = 64) -> DiffusersVae:
        """Wrap a diffusers VAE made in code; its provenance says random."""
        tokenizer = cls.__new__(cls)
        nn.Module.__init__(tokenizer)
        tokenizer._set_up(network, clips_at_once)
        source = f"{type(network).__name__} from its config"
        tokenizer.provenance = {"source": source, "revision": None, "random": True}
        return tokenizer

    def _set_up(self, network: Any, clips_at_once: int) -> None:
        name = type(network).__name__
        if name not in _CLASSES:
            raise expected(f"a VAE of class {', '.join(_CLASSES)}", got=name, do="name a VAE of these classes")
        self._hold(network)
        self.takes_video, self.clips_at_once = _CLASSES[name], clips_at_once
        self.channels, self.spatial, self.temporal = _geometry(name, network)
        self._needs_timestep = bool(network.config.get("timestep_conditioning", False))
        self._mean, self._std = _scale(name, network)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        self.check_frames(frames)
        parts = self._fold(frames.to(self.dtype)).split(self.clips_at_once)
        z = torch.cat([self._mode(self.network.encode(part)) for part in parts]).float()
        mean, std = self._scale_of(z)
        return self._unfold((z - mean) / std, frames)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        z = self._fold(latents.float())
        mean, std = self._scale_of(z)
        parts = (z * std + mean).to(self.dtype).split(self.clips_at_once)
        frames = torch.cat([self._decode(part) for part in parts]).float()
        return self._unfold(frames, latents)

    def _decode(self, z: Tensor) -> Tensor:
        if self._needs_timestep:  # an LTX decoder that also denoises: at time 0 it only decodes
            return self.network.decode(z, torch.zeros(len(z), device=z.device, dtype=z.dtype)).sample
        return self.network.decode(z).sample

    @staticmethod
    def _mode(output: Any) -> Tensor:
        return output.latent_dist.mode() if hasattr(output, "latent_dist") else output.latents

    def _fold(self, x: Tensor) -> Tensor:
        return rearrange(x, "B V T H W C -> (B V) C T H W" if self.takes_video else "B V T H W C -> (B V T) C H W")

    def _unfold(self, x: Tensor, like: Tensor) -> Tensor:
        if self.takes_video:
            return rearrange(x, "(B V) C T H W -> B V T H W C", V=like.shape[1])
        return rearrange(x, "(B V T) C H W -> B V T H W C", V=like.shape[1], T=like.shape[2])

    def _scale_of(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation that broadcast with z (N, c, [t,] h, w); some configs give one pair per latent in time."""
        known = self._mean.shape[1]
        if not self.takes_video:
            return self._mean[:, :, None].to(z.device), self._std[:, :, None].to(z.device)
        if 1 < known < z.shape[2]:
            raise expected(
                f"at most {known} latents in time, for which this VAE's config has statistics",
                got=z.shape[2],
                do=f"encode clips of at most {1 + (known - 1) * self.temporal} frames",
            )
        length = min(known, z.shape[2])
        mean, std = (s[:, :length, None, None].to(z.device) for s in (self._mean, self._std))
        return mean, std


def _read(name_or_path: str, revision: str | None, subfolder: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network and its loading report."""
    import diffusers

    source = {"revision": revision, "subfolder": subfolder or None}
    config = diffusers.AutoencoderKL.load_config(name_or_path, **source)
    name = config.get("_class_name")
    if name not in _CLASSES:
        raise expected(f"a VAE of class {', '.join(_CLASSES)}", got=repr(name), do="name a VAE of these classes")
    return getattr(diffusers, name).from_pretrained(
        name_or_path, use_safetensors=True, output_loading_info=True, torch_dtype=torch.float32, **source
    )


def _geometry(name: str, network: Any) -> tuple[int, int, int]:
    """(channels, pixels per latent, frames per latent) from the network's own layers."""
    config = network.config
    if name == "AutoencoderKL":
        return config.latent_channels, 2 ** (len(config.block_out_channels) - 1), 1
    if name == "AutoencoderTiny":
        return config.latent_channels, 2 ** (len(config.encoder_block_out_channels) - 1), 1
    if name == "AutoencoderKLWan":
        spatial = 2 ** (len(config.dim_mult) - 1) * (config.patch_size or 1)
        return config.z_dim, spatial, 2 ** sum(config.temperal_downsample)
    if name == "AutoencoderKLCosmos":
        return config.latent_channels, config.spatial_compression_ratio, config.temporal_compression_ratio
    return config.latent_channels, network.spatial_compression_ratio, network.temporal_compression_ratio


def _scale(name: str, network: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the network's latents, each (c, n): n is 1, or the latents in time for Cosmos 1."""
    config = network.config
    factor = float(config.get("scaling_factor") or 1.0)
    if name == "AutoencoderKLLTXVideo":
        mean, std = network.latents_mean, network.latents_std
    else:
        mean, std = config.get("latents_mean"), config.get("latents_std")
    channels = config.z_dim if name == "AutoencoderKLWan" else config.latent_channels
    if mean is None or std is None:
        return torch.full((channels, 1), float(config.get("shift_factor") or 0.0)), torch.full(
            (channels, 1), 1 / factor
        )
    mean, std = (torch.as_tensor(s, dtype=torch.float32).reshape(-1) for s in (mean, std))
    if len(mean) % channels or len(mean) != len(std):
        raise expected(
            f"latents_mean and latents_std with a multiple of {channels} numbers",
            got=f"{len(mean)} and {len(std)}",
            do="correct the VAE's config.json",
        )
    return mean.reshape(channels, -1), std.reshape(channels, -1) / factor
