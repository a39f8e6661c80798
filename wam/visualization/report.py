"""One self-contained HTML page about a run, from the files in its folder: no script, no other file, no address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wam.evaluation.summary import now
from wam.evaluation.words import number
from wam.files import write_bytes
from wam.visualization import sections
from wam.visualization.latent_section import latent_actions
from wam.visualization.markup import Markup, definitions, escape, missing, section, table
from wam.visualization.run_files import RunFiles, read_run
from wam.visualization.student_section import student
from wam.visualization.voxel_section import voxels


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` into a run's folder and return its path. What is missing there is shown as not measured."""
    folder = Path(run_dir)
    page = render(read_run(folder))
    path = folder / "report.html"
    write_bytes(path, page.encode())
    return path


def render(run: RunFiles) -> str:
    """The page."""
    style = (Path(__file__).parent / "page.css").read_text()
    body = "".join(
        (
            _header(run),
            sections.gate_tiles(run),
            sections.films(run),
            sections.strips(run),
            sections.what_ifs(run),
            voxels(run),
            latent_actions(run),
            sections.success_tables(run),
            sections.failures(run),
            student(run),
            sections.training_curves(run),
            sections.video_metrics(run),
            _figures(run),
            _provenance(run),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(run.name)} · world-action model</title><style>{style}</style></head>"
        f"<body><main>{body}<footer>Written {escape(now())} by <code>wam report</code>.</footer></main></body></html>\n"
    )


def _header(run: RunFiles) -> str:
    failed = len({r.name for r in run.gates or [] if not r.passed})
    total = len({r.name for r in run.gates or []})
    verdict = "The world-model gates were not measured."
    if total:
        plural = "gates" if total > 1 else "gate"
        verdict = (
            f'<span class="mark pass">All {total} measured {plural} passed.</span>'
            if not failed
            else f'<span class="mark fail">{failed} of {total} measured {plural} failed.</span>'
        )
    banners = "".join(f'<div class="banner">{escape(problem)}</div>' for problem in run.problems)
    if _random(run.provenance):
        banners += (
            '<div class="banner"><b>Random weights.</b> Parts of this model were never trained '
            "(see provenance); its figures say nothing about the method.</div>"
        )
    latent = (("latent", "latent actions"),) if run.latent else ()
    grids = (("voxels", "voxels"),) if run.voxels else ()
    small = (("student", "student"),) if run.student else ()
    links = (
        ("gates", "gates"), ("rollouts", "rollouts"), ("imagined", "imagined futures"), ("what-if", "what if"), *grids, *latent,
        ("success", "success"), ("failures", "failures"), *small, ("training", "training"), ("video", "video metrics"),
        ("provenance", "provenance"),
    )  # fmt: skip
    anchors = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in links)
    return (
        f"<header><h1>{escape(run.name)}: a world-action model</h1>"
        '<p class="lead">One network learned from robot videos to do two things at once: to act on a sentence, and to '
        "imagine what the cameras will show next, with or without being told the actions. This page shows how far it got: "
        f"what it imagines beside what happened, and how often it solves its tasks. {verdict}</p>"
        f"<nav>{anchors}</nav></header>{banners}"
    )


def _random(provenance: Mapping[str, Any] | None) -> bool:
    """Whether the checkpoint, or any part it was built from, says that its weights are random."""
    if not provenance:
        return False
    parts = provenance.get("parts") or {}
    nested = parts.values() if isinstance(parts, Mapping) else ()
    return bool(provenance.get("random")) or any(isinstance(p, Mapping) and p.get("random") for p in nested)


def _figures(run: RunFiles) -> str:
    """Every figure of the summary, as a command printed it."""
    figures = (run.summary or {}).get("figures")
    if not figures:
        return section(
            "figures", "All figures", missing("summary.json", "Every command that prints figures writes it.")
        )
    rows = [[f"<code>{escape(k)}</code>", number(v, 3)] for k, v in figures.items()]
    listed = table(["figure", "value"], rows, numeric=(1,))
    body = f"<details><summary>{len(rows)} figures of summary.json</summary>{listed}</details>"
    return section("figures", "All figures", body)


def _provenance(run: RunFiles) -> str:
    """Where it comes from: enough to run it again."""
    summary, made = run.summary or {}, run.provenance or {}
    hardware = summary.get("hardware") or {}
    known: dict[str, Any] = {
        "checkpoint": run.checkpoint,
        "code": made.get("code"),
        "version": made.get("wam") or summary.get("version"),
        "stage": made.get("stage"),
        "training steps": made.get("step"),
        "training time": f"{made['train_seconds'] / 60:.1f} min" if made.get("train_seconds") else None,
        "data": _plain(made.get("data")),
        "training windows": _plain(made.get("windows")),
        "seed of training": made.get("seed"),
        "seeds of evaluation": _plain(summary.get("seeds")),
        "n": _plain(summary.get("n")),
        "weights": None if run.provenance is None else _weights(made),
        "hardware": ", ".join(
            f"{hardware[k]}{unit}"
            for k, unit in (("processor", ""), ("cores", " cores"), ("memory_gib", " GiB"), ("accelerator", ""))
            if hardware.get(k)
        ),
        "software": ", ".join(f"{k} {hardware[k]}" for k in ("python", "torch") if hardware.get(k)),
        "date": summary.get("date"),
    }
    shown = {name: "not recorded" if value in (None, "", {}, []) else value for name, value in known.items()}
    if run.provenance is None:
        shown["checkpoint"] = Markup('<span class="mark fail">no checkpoint with provenance was found</span>')
    files = made.get("sha256") or {}
    hashes = table(["file", "sha256"], [[escape(k), f"<code>{escape(v)}</code>"] for k, v in files.items()])
    more = f"<details><summary>Files of the checkpoint</summary>{hashes}</details>" if files else ""
    config = f"<details><summary>Config</summary><pre>{escape(run.config)}</pre></details>" if run.config else ""
    config = config or missing("config.yaml", "Training writes it into the run's folder.")
    return section("provenance", "Provenance", definitions(shown), more, config)


def _weights(provenance: Mapping[str, Any]) -> str:
    if "random" not in provenance:
        return "not recorded"
    words = ["random, never trained" if provenance["random"] else "trained"]
    for name, part in (provenance.get("parts") or {}).items():
        if isinstance(part, Mapping):
            words.append(
                f"{name}: {'random' if part.get('random') else 'trained'} ({part.get('source', 'unknown source')})"
            )
    return "; ".join(words)


def _plain(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
