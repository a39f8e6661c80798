"""The files an evaluation leaves in a run's folder, and the only place that knows how they look.

    evaluation/gates.json       {"results": [fields of GateResult, ...], "date"}
    evaluation/success.json     {"evaluations": {variant: ClosedLoopResult.to_dict()}, "date"}
    evaluation/video.json       {"rows": [{"prediction", "data", "steps", "n", "psnr", ...}], "date"}
    evaluation/filmstrips.npz   fields of FilmStrips      evaluation/what_if.npz   fields of WhatIf
    evaluation/rollouts.npz     frames_0, frames_1, ... and `meta`, JSON: [{fields of Episode, "stride"}, ...]

Arrays hold no Python objects, so nothing is unpickled. A file that is missing loads as None: it was not measured.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wam.contracts import expected
from wam.evaluation.closed_loop import ClosedLoopResult
from wam.evaluation.episode_log import Episode, Rollout
from wam.evaluation.gates import GateResult
from wam.evaluation.summary import now, write_json
from wam.files import write_bytes


@dataclass(frozen=True, kw_only=True)
class FilmStrips:
    """Futures as they were and as they were imagined, all uint8.

    present (N, V, H, W, C); real, imagined (N, V, T, H, W, C); captions: N sentences; kinds: N of "forward" (the true
    actions were given) or "imagine" (none were); seconds (T,): how far ahead each frame lies, or None.
    """

    present: np.ndarray
    real: np.ndarray
    imagined: np.ndarray
    captions: tuple[str, ...]
    kinds: tuple[str, ...]
    seconds: np.ndarray | None = None

    def __add__(self, other: FilmStrips) -> FilmStrips:
        arrays = {n: np.concatenate([getattr(self, n), getattr(other, n)]) for n in ("present", "real", "imagined")}
        return FilmStrips(
            **arrays, captions=self.captions + other.captions, kinds=self.kinds + other.kinds, seconds=self.seconds
        )


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """The same starts under M different actions, uint8.

    present (N, V, H, W, C); imagined (N, M, V, T, H, W, C); truth: the same from the simulator, or None; names: of the
    M actions; motion (M, 3): their mean x, y, z; extrinsics (N, V, 4, 4) camera-to-world to draw arrows with, or None.
    """

    present: np.ndarray
    imagined: np.ndarray
    names: tuple[str, ...]
    motion: np.ndarray
    truth: np.ndarray | None = None
    extrinsics: np.ndarray | None = None


Arrays = TypeVar("Arrays", FilmStrips, WhatIf)


def _folder(run: str | Path) -> Path:
    return Path(run) / "evaluation"


def save_gates(run: str | Path, results: Sequence[GateResult]) -> Path:
    content = {"results": [r.to_dict() for r in results], "date": now()}
    return write_json(_folder(run) / "gates.json", content)


def load_gates(run: str | Path) -> list[GateResult] | None:
    content = load_json(_folder(run) / "gates.json")
    return None if content is None else [GateResult.from_dict(r) for r in content["results"]]


def save_success(run: str | Path, evaluations: Mapping[str, ClosedLoopResult]) -> Path:
    content = {"evaluations": {name: r.to_dict() for name, r in evaluations.items()}, "date": now()}
    return write_json(_folder(run) / "success.json", content)


def load_success(run: str | Path) -> dict[str, Any] | None:
    content = load_json(_folder(run) / "success.json")
    return None if content is None else content["evaluations"]


def save_video_table(run: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    return write_json(_folder(run) / "video.json", {"rows": list(rows), "date": now()})


def load_video_table(run: str | Path) -> list[dict[str, Any]] | None:
    content = load_json(_folder(run) / "video.json")
    return None if content is None else content["rows"]


def save_film_strips(run: str | Path, strips: FilmStrips) -> Path:
    return _save_arrays(_folder(run) / "filmstrips.npz", strips)


def load_film_strips(run: str | Path) -> FilmStrips | None:
    return _load_arrays(_folder(run) / "filmstrips.npz", FilmStrips)


def save_what_if(run: str | Path, pictures: WhatIf) -> Path:
    return _save_arrays(_folder(run) / "what_if.npz", pictures)


def load_what_if(run: str | Path) -> WhatIf | None:
    return _load_arrays(_folder(run) / "what_if.npz", WhatIf)


def save_rollouts(run: str | Path, rollouts: Sequence[Rollout]) -> Path:
    meta = json.dumps([{**asdict(r.episode), "stride": r.stride} for r in rollouts])
    return _save(
        _folder(run) / "rollouts.npz",
        {"meta": np.array(meta), **{f"frames_{i}": r.frames for i, r in enumerate(rollouts)}},
    )


def load_rollouts(run: str | Path) -> list[Rollout] | None:
    arrays = _load(_folder(run) / "rollouts.npz")
    if arrays is None:
        return None
    found = []
    for i, meta in enumerate(json.loads(str(arrays["meta"]))):
        stride = meta.pop("stride")
        found.append(Rollout(episode=Episode(**meta), frames=arrays[f"frames_{i}"], stride=stride))
    return found


def load_json(path: str | Path) -> Any:
    """The content of a JSON file, None if there is none, an error if it is broken."""
    path = Path(path)
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise expected(f"JSON in {path}", got=error, do="remove the file and evaluate again") from error


def _save_arrays(path: Path, fields: FilmStrips | WhatIf) -> Path:
    found = {f.name: getattr(fields, f.name) for f in dataclasses.fields(fields)}
    return _save(path, {k: np.asarray(v) for k, v in found.items() if v is not None})


def _load_arrays(path: Path, kind: type[Arrays]) -> Arrays | None:
    arrays = _load(path)
    if arrays is None:
        return None
    fields: dict[str, Any] = {k: tuple(v.tolist()) if v.dtype.kind == "U" else v for k, v in arrays.items()}
    return kind(**fields)


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    write_bytes(path, packed.getvalue())
    return path


def _load(path: Path) -> dict[str, np.ndarray] | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise expected(f"arrays in {path}", got=error, do="remove the file and evaluate again") from error
