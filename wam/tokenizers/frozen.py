"""Frozen pretrained networks: held without being copied into checkpoints, loaded without a silent random weight."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wam.contracts import WamError, expected
from wam.files import write_json
from wam.settings import missing_file
from wam.typed import first_line

PROVENANCE = "provenance.json"


class _Shared:
    """Holds a network so that copies of the owner (an EMA, say) share it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


class Frozen(nn.Module):
    """A module around a frozen network, which follows `.to(...)` but is no part of `parameters()` or `state_dict()`.

    A checkpoint names the network in its provenance and does not carry it; an optimiser does not see it.
    """

    provenance: dict[str, Any]

    def _hold(self, network: nn.Module) -> None:
        self._shared = _Shared(network.eval().requires_grad_(False))

    @property
    def network(self) -> Any:
        return self._shared.network

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Frozen:
        super()._apply(fn, recurse)
        self.network._apply(fn)
        return self

    def save_pretrained(self, folder: Path) -> None:
        """Write the network in its own library's format, with a note that says whether its weights are random."""
        self.network.save_pretrained(folder, safe_serialization=True)
        write_json(Path(folder) / PROVENANCE, self.provenance)


def read_provenance(name_or_path: str, revision: str | None) -> dict[str, Any]:
    """{source, revision, random} of weights on disk: their own note where there is one, else where they came from."""
    note = Path(name_or_path) / PROVENANCE
    written: Mapping[str, Any] = json.loads(note.read_text()) if note.is_file() else {}
    return {
        "source": written.get("source", name_or_path),
        "revision": written.get("revision", revision),
        "random": bool(written.get("random", False)),
    }


def not_on_disk(kind: str, name_or_path: str, revision: str | None, error: Exception) -> WamError:
    """The error for weights that could not be loaded: what to download and where to, in place of the library's own."""
    path = Path(name_or_path)
    if path.is_dir():
        names = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
        return expected(
            f"{kind} in {path} with config.json and safetensors weights",
            got=f"a folder with {names} ({first_line(error)})",
            do="download or copy the whole folder again",
        )
    if path.is_absolute() or name_or_path.startswith(("./", "../", "~")) or name_or_path.count("/") > 1:
        return missing_file(path, f"{kind} in the folder")
    from huggingface_hub.constants import HF_HUB_CACHE

    at = f" --revision {revision}" if revision else ""
    return expected(
        f"{kind} {name_or_path!r} on this machine",
        got=f"nothing of that name in {HF_HUB_CACHE} and no way to fetch it",
        do=f"run `hf download {name_or_path}{at}` where there is a network and copy the cache here, or give a folder",
    )


def refuse_missing(kind: str, name_or_path: str, missing: object) -> None:
    """Raise if loading left weights of the network at their random initialisation."""
    names = sorted(missing) if isinstance(missing, list | set | tuple) else []
    if names:
        raise expected(
            f"every weight of {kind} in {name_or_path}",
            got=f"{len(names)} missing, {names[0]} first",
            do="give a checkpoint of this architecture; missing weights are never filled at random",
        )
