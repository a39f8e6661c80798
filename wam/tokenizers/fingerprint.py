"""Which encoder it is: a digest of its class, its settings and its weights, so that what it made is known to be its own."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn

from wam.tokenizers.frozen import Frozen


def fingerprint(encoder: nn.Module) -> str:
    """sha256 of the encoder's class, plain settings and vocabulary, and of every weight and buffer that it holds, a frozen
    network's too.

    Of what a path names, only the content counts: a copy elsewhere has the same digest, an edited file another.
    """
    digest = hashlib.sha256()
    parts = [encoder, encoder.network] if isinstance(encoder, Frozen) else [encoder]
    for part in parts:
        digest.update(json.dumps([type(part).__name__, _settings(part)], sort_keys=True, default=str).encode())
        digest.update(_vocabulary(part).encode())
        for name, value in sorted([*part.named_parameters(), *part.named_buffers(), *_loose(part)]):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(_bytes(value))
    return digest.hexdigest()


def _settings(part: nn.Module) -> dict[str, Any]:
    """Its own plain values, and a diffusers or transformers config where it has one, without the names of its files."""
    plain = (bool, int, float, str, type(None))
    left_out = ("training", "clips_at_once")
    found: dict[str, Any] = {k: v for k, v in vars(part).items() if isinstance(v, plain) and k not in left_out}
    config: Any = getattr(part, "config", None)
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    if hasattr(config, "items"):
        found["config"] = {k: v for k, v in dict(config).items() if not k.startswith("_") and "version" not in k}
    return found


def _vocabulary(part: nn.Module) -> str:
    """All that a tokenizer of words does, as its library writes it; nothing where the encoder has none."""
    words = getattr(part, "tokenizer", None)
    backend = getattr(words, "backend_tokenizer", None)
    if backend is not None:
        return backend.to_str()
    return json.dumps(words.get_vocab(), sort_keys=True) if words is not None else ""


def _loose(part: nn.Module) -> list[tuple[str, Tensor]]:
    """Tensors that are plain attributes, such as a frozen VAE's scale."""
    return [(name, value) for name, value in vars(part).items() if isinstance(value, Tensor)]


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
