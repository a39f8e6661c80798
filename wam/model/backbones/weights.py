"""Which files weights were read from, and their fingerprint, for the provenance of a pretrained base."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from wam.files import sha256


def files_read(source: str, folder: str | None, revision: str | None, *, stem: str) -> list[Path]:
    """The safetensors files that `from_pretrained` has just read: STEM.safetensors, or those that its index names."""
    from huggingface_hub import try_to_load_from_cache

    where = f"{folder}/" if folder else ""
    if Path(source).is_dir():
        at = Path(source) / where
    else:
        config = try_to_load_from_cache(source, f"{where}config.json", revision=revision)
        if not isinstance(config, str):
            return []
        at = Path(config).parent
    index = at / f"{stem}.safetensors.index.json"
    if index.is_file():
        return sorted({at / name for name in json.loads(index.read_text())["weight_map"].values()})
    return sorted(at.glob(f"{stem}.safetensors"))


def commit_of(files: list[Path]) -> str | None:
    """The commit in a path of the hub's cache, models--OWNER--NAME/snapshots/COMMIT/..."""
    parts = files[0].parts if files else ()
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None


def fingerprint(files: list[Path]) -> str | None:
    """sha256 of a file; of several, that of their digests in order."""
    digests = [_digest(file) for file in files]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest() if digests else None
    )


def _digest(file: Path) -> str:
    """The hub's cache names a large file's blob by its sha256, so that tens of gigabytes need not be read a second time."""
    blob = file.resolve()
    return blob.name if blob.parent.name == "blobs" and len(blob.name) == 64 else sha256(file)
