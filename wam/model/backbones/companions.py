"""How large the frozen networks beside a backbone are: its text encoder and VAE, counted from their shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from wam.model.backbones.catalogue import CATALOGUE

_T5 = {"d_kv": 64, "num_layers": 24, "feed_forward_proj": "gated-gelu"}
_TEXT: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "Wan-AI": (
        "UMT5EncoderModel",
        "UMT5Config",
        {**_T5, "d_model": 4096, "d_ff": 10240, "num_heads": 64, "vocab_size": 256384},
    ),
    "nvidia/Cosmos-Predict2-": (
        "T5EncoderModel",
        "T5Config",
        {"d_model": 1024, "d_kv": 128, "d_ff": 65536, "num_heads": 128, "num_layers": 24, "vocab_size": 32128},
    ),
    "Lightricks": (
        "T5EncoderModel",
        "T5Config",
        {**_T5, "d_model": 4096, "d_ff": 10240, "num_heads": 64, "vocab_size": 32128},
    ),
}
_WAN_2_2 = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
_VAES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Wan-AI/Wan2.2-TI2V": ("AutoencoderKLWan", _WAN_2_2),
    "Wan-AI/Wan2.1": ("AutoencoderKLWan", {}),
    "nvidia/Cosmos-Predict2": ("AutoencoderKLWan", {}),
    "Lightricks": ("AutoencoderKLLTXVideo", {}),
}
"""Shapes by the beginning of the repository's name."""


@cache
def companions(name: str) -> Mapping[str, int]:
    """Parameters of the text encoder and of the VAE of a backbone of the catalogue, where their shapes are known here."""
    import diffusers
    import transformers

    known, found = CATALOGUE.get(name), {}
    if known is None:
        return {}
    with torch.device("meta"):
        if text := _of(_TEXT, known.repository):
            network = getattr(transformers, text[0])(getattr(transformers, text[1])(**text[2]))
            found["text encoder"] = sum(p.numel() for p in network.parameters())
        if vae := _of(_VAES, known.repository):
            found["VAE"] = sum(p.numel() for p in getattr(diffusers, vae[0])(**vae[1]).parameters())
    return found


def _of(table: Mapping[str, Any], repository: str) -> Any:
    return next((value for start, value in table.items() if repository.startswith(start)), None)
