"""The checkpoint: a folder that says what it holds, how it was made, and whether it is still what was written.

    config.yaml        everything needed to build the network again
    model.safetensors  its weights
    statistics.json    statistics of the data it was trained on
    provenance.json    data and code revision, seeds, random-or-pretrained weights, sha256 of each of the files above

Weights may be stored as int8 with scales (`wam.quantized`): provenance then says so under `storage`, and loading gives float32.
No pickle is read or written.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import wam
from wam.contracts import expected
from wam.files import sha256, write_bytes, write_json

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, STATISTICS, PROVENANCE = "config.yaml", "model.safetensors", "statistics.json", "provenance.json"
STORAGE = "storage"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """config and statistics are plain mappings; tensors by name; provenance holds at least `random` (are any weights
    untrained?) and `sources`."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, *, int8: bool = False) -> None:
        """Write the folder; provenance.json comes last, so a folder without it is unfinished. int8: matrices at a byte a
        weight, which rounds them (see `wam.quantized`)."""
        from safetensors.torch import save

        from wam.quantized import quantize, quantized_count

        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROVENANCE).unlink(missing_ok=True)
        write_bytes(folder / CONFIG, yaml.safe_dump(dict(self.config), sort_keys=False).encode())
        tensors = quantize(self.tensors) if int8 else self.tensors
        write_bytes(folder / WEIGHTS, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))
        write_json(folder / STATISTICS, self.statistics)
        files = {name: sha256(folder / name) for name in (CONFIG, WEIGHTS, STATISTICS)}
        said = {
            name: value for name, value in self.provenance.items() if name != STORAGE
        }  # what was loaded may have been int8
        if int8:
            said[STORAGE] = {"int8": quantized_count(tensors)}
        write_json(folder / PROVENANCE, {"wam": wam.__version__, **said, "sha256": files})

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Read a folder, checking every file against its recorded sha256. Raises WamError if one differs or lacks."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        from wam.quantized import restored

        provenance_file = folder / PROVENANCE
        if not provenance_file.is_file():
            found = "an unfinished checkpoint" if (folder / CONFIG).exists() else "no such folder or file in it"
            raise expected(f"a checkpoint with {PROVENANCE} at {folder}", got=found, do="name a checkpoint folder")
        try:
            provenance = json.loads(provenance_file.read_text())
            recorded = dict(provenance["sha256"])
        except (ValueError, KeyError, TypeError) as error:
            raise expected(
                f"{provenance_file} to list a sha256 per file", got=str(error), do="fetch it again"
            ) from error
        for name in (CONFIG, WEIGHTS, STATISTICS):
            actual = sha256(folder / name) if (folder / name).is_file() else "no file"
            if actual != recorded.get(name):
                raise expected(
                    f"{folder / name} with sha256 {str(recorded.get(name))[:12]}",
                    got=actual[:12],
                    do="the file was damaged or changed; copy the checkpoint again or use an earlier one",
                )
        try:
            tensors = load((folder / WEIGHTS).read_bytes())
        except SafetensorError as error:
            raise expected(f"{folder / WEIGHTS} in safetensors format", got=str(error), do="fetch it again") from error
        if storage := provenance.get(STORAGE):
            count = storage.get("int8") if isinstance(storage, Mapping) else None
            if not isinstance(count, int):
                raise expected(
                    f"{provenance_file} to name a storage this version knows, int8",
                    got=storage,
                    do="fetch it again, or use a newer version of wam",
                )
            tensors = restored(tensors, count=count)
        return cls(
            config=yaml.safe_load((folder / CONFIG).read_text()),
            tensors=tensors,
            statistics=json.loads((folder / STATISTICS).read_text()),
            provenance=provenance,
        )


def code_revision() -> str:
    """The git revision of the code that runs, `-dirty` if it has changes, or the version outside a repository."""
    root = Path(__file__).resolve().parent.parent
    try:
        revision = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        revision = ""
    return revision or f"wam {wam.__version__}"
