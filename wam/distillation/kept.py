"""Tensors kept in a file with what they answer to: read back where it is the same, made anew where it is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wam.files import write_bytes


def keep(path: Path, tensors: Mapping[str, Tensor], *, identity: Mapping[str, Any], **about: Any) -> None:
    """Write tensors, their identity, and further JSON values by name."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    words = {"identity": dict(identity), **about}
    write_bytes(
        path, save(content, metadata={name: json.dumps(value, sort_keys=True) for name, value in words.items()})
    )


def kept(path: Path, *, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and values, or None where there is no such file, or one of another identity, or a damaged one."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            words = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
            if words.pop("identity", None) != json.loads(json.dumps(dict(identity))):
                return None
            return {name: file.get_tensor(name) for name in file.keys()}, words  # noqa: SIM118
    except (SafetensorError, ValueError):
        return None
