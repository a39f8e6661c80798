"""A run's folder, read for its report. A missing file is None; a broken one is a sentence in the page, not an end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from wam.contracts import WamError, expected
from wam.evaluation import artefacts
from wam.evaluation.artefacts import FilmStrips, WhatIf
from wam.evaluation.episode_log import Rollout
from wam.evaluation.gates import GateResult

Read = TypeVar("Read")
TURNED, ANGLES = "_turned", 12
"""What ends the name of a picture that shows the same from so many sides, one below the other."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFiles:
    """What `wam eval latent-action`, `occupancy` or `student` left: its summary, and PNGs by name with what each shows."""

    summary: dict[str, Any]
    pictures: dict[str, tuple[str, bytes]]


@dataclass(kw_only=True)
class RunFiles:
    """What a run's folder holds. problems: sentences about files that could not be read."""

    name: str
    summary: dict[str, Any] | None = None
    metrics: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    config: str | None = None
    checkpoint: str | None = None
    provenance: dict[str, Any] | None = None
    gates: list[GateResult] | None = None
    success: dict[str, Any] | None = None
    video: list[dict[str, Any]] | None = None
    strips: FilmStrips | None = None
    what_if: WhatIf | None = None
    rollouts: list[Rollout] | None = None
    latent: EvaluationFiles | None = None
    voxels: EvaluationFiles | None = None
    student: EvaluationFiles | None = None
    problems: list[str] = field(default_factory=list)


def read_run(folder: Path) -> RunFiles:
    """Everything the report shows. Raises WamError only if there is no such folder."""
    if not folder.is_dir():
        raise expected("a run's folder", got=str(folder), do="name a folder under runs/ that a command has written")
    run = RunFiles(name=folder.resolve().name)

    def attempt(load: Callable[[Path], Read]) -> Read | None:
        try:
            return load(folder)
        except WamError as error:
            run.problems.append(str(error))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            run.problems.append(f"a file of this run has an unknown shape ({error!r}); evaluate the run again")
        return None

    run.summary = attempt(lambda f: artefacts.load_json(f / "summary.json"))
    run.metrics = attempt(read_metrics) or {}
    run.config = (folder / "config.yaml").read_text(errors="replace") if (folder / "config.yaml").exists() else None
    run.checkpoint, run.provenance = attempt(read_provenance) or (None, None)
    run.gates = attempt(artefacts.load_gates)
    run.success = attempt(artefacts.load_success)
    run.video = attempt(artefacts.load_video_table)
    run.strips = attempt(artefacts.load_film_strips)
    run.what_if = attempt(artefacts.load_what_if)
    run.rollouts = attempt(artefacts.load_rollouts)
    run.latent = attempt(partial(read_evaluation, name="latent-action"))
    run.voxels = attempt(partial(read_evaluation, name="occupancy"))
    run.student = attempt(partial(read_evaluation, name="student"))
    return run


def read_evaluation(folder: Path, *, name: str) -> EvaluationFiles | None:
    """A part of a run's evaluation that keeps its own summary. Beside a picture there may be one seen from all sides."""
    place = folder / "evaluation" / name
    summary = artefacts.load_json(place / "summary.json")
    if summary is None:
        return None
    shown = {
        picture + ending: (title, path.read_bytes())
        for picture, title in summary.get("pictures", {}).items()
        for ending in ("", TURNED)
        if (path := place / f"{picture}{ending}.png").is_file()
    }
    return EvaluationFiles(summary=summary, pictures=shown)


def read_metrics(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """`metrics.jsonl` as name -> (steps, values); a line that a crash cut short is left out."""
    path = folder / "metrics.jsonl"
    found: dict[str, tuple[list[float], list[float]]] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            step = record.pop("step")
        except (ValueError, KeyError, AttributeError):
            continue
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                steps, values = found.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
    return found


def read_provenance(folder: Path) -> tuple[str | None, dict[str, Any] | None]:
    """The newest checkpoint's name and its provenance."""
    pointer = folder / "checkpoints" / "last"
    if not pointer.is_file():
        return None, None
    name = pointer.read_text().strip()
    return name, artefacts.load_json(folder / "checkpoints" / name / "provenance.json")
