"""The file every command that prints figures writes too: `summary.json`, with what a figure needs beside it."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import wam
from wam.contracts import expected
from wam.files import write_bytes


def hardware() -> dict[str, Any]:
    """The machine in words: processor, usable cores, memory in GiB, accelerator if torch sees one."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return {
        "processor": model,
        "cores": cores,
        "memory_gib": memory,
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def now() -> str:
    """The date and time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON so that a reader sees the old file or the new one, never half. Not finite becomes null."""
    write_bytes(Path(path), (json.dumps(_plain(content), indent=2, allow_nan=False) + "\n").encode())
    return Path(path)


def write_summary(
    path: str | Path,
    figures: Mapping[str, float],
    *,
    n: int | Mapping[str, int],
    seeds: Sequence[int],
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `{"figures", "n", "seeds", "hardware", "date", "version"}` plus the keys of `extra`; returns it.

    A figure that is not finite is written as null and listed under `not_finite`, so nothing reads it as a number.
    """
    for name, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise expected(f"figure {name!r} as a number", got=repr(value), do="put words under `extra`")
    summary: dict[str, Any] = {
        "figures": dict(figures),
        "n": dict(n) if isinstance(n, Mapping) else n,
        "seeds": list(seeds),
        "hardware": hardware(),
        "date": now(),
        "version": wam.__version__,
    }
    if bad := sorted(name for name, value in figures.items() if not math.isfinite(value)):
        summary["not_finite"] = bad
    if clash := set(summary) & set(extra or {}):
        raise expected("extra keys beside the summary's own", got=sorted(clash), do="rename them")
    summary |= dict(extra or {})
    write_json(path, summary)
    return _plain(summary)


def read_summary(path: str | Path) -> dict[str, Any]:
    """A summary as written, checked for its keys."""
    path = Path(path)
    try:
        summary = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise expected(f"a summary at {path}", got=error, do="run the command that writes it again") from error
    if not isinstance(summary, dict) or not {"figures", "n", "seeds"} <= set(summary):
        raise expected(f"{path} to hold figures, n and seeds", got=type(summary).__name__, do="write it again")
    return summary


def _plain(value: Any) -> Any:
    """Builtin types only; floats that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
