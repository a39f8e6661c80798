"""The README's table of results, filled from the files that commands write: no figure is typed by hand.

    make readme                                     # this, and the README's pictures
    .venv/bin/python tools/readme_results.py        # take new figures from runs/ into docs/results/, fill the table
    .venv/bin/python tools/readme_results.py --check   # status 1 if the table is not what docs/results/ says

docs/results/ keeps, under version control, what was read: figures, n, seeds, hardware, date. A figure that no file has
stands as "not measured yet"; one that misses its target says so.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wam.contracts import WamError, expected
from wam.files import write_bytes, write_json

BEGIN, END = "<!-- results: written by tools/readme_results.py -->", "<!-- end of results -->"
KEPT = ("figures", "n", "seeds", "hardware", "date", "version", "threads")
NOT_YET = "not measured yet"

LATENT = "wam eval latent-action tokenizers/latent_action --config configs/eval/latent-action-human.yaml"

SOURCES: Mapping[str, tuple[str, str]] = {
    "demo": ("runs/demo/summary.json", "make demo"),
    "metaworld-cpu": ("runs/metaworld-cpu/seed-*/summary.json", "make recipe SEED=0 (1, 2)"),
    "no-future": ("runs/metaworld-cpu/no-future/summary.json", "make control-no-future"),
    "cloning": ("runs/metaworld-cpu/cloning/summary.json", "make control-cloning"),
    "blind": ("runs/metaworld-cpu/blind/summary.json", "make control-blind"),
    **{name: (f"runs/bench/{name}.json", f"wam bench {name}") for name in ("conditionals", "cache", "rollout", "step")},
    "loader": ("runs/bench/loader.json", "wam bench loader"),
    **{name: (f"runs/bench/{name}.json", "make bench-lerobot") for name in ("lerobot", "lerobot-act")},
    "curate": ("runs/bench/curate.json", "wam bench curate"),
    "latent-action": ("tokenizers/latent_action/figures.json", LATENT),
    "few-label": ("runs/few-label/summary.json", "make few-label"),
    "occupancy": ("runs/occupancy/evaluation/occupancy/summary.json", "make occupancy"),
    "ablation": ("runs/occupancy-ablation/summary.json", "make occupancy-ablation"),
    "guidance": ("runs/bench/guidance.json", "make guidance"),
    "student": ("runs/bench/student.json", "make student"),
    "delay": ("runs/bench/delay.json", "make delay"),
    "bench-occupancy": ("runs/bench/occupancy.json", "wam bench occupancy"),
    **{name: (f"runs/bench/{name}.json", f"wam bench {name}") for name in ("server", "fuzz-server", "fuzz-guard")},
    **{
        name: (f"runs/bench/{name}.json", f"wam bench {name}")
        for name in ("parity", "backbone", "latency", "ranks", "plan")
    },
    "openpi": ("runs/bench/openpi.json", "make test-openpi RUN=runs/distill/student-0"),
    "notebooks": ("runs/bench/notebooks.json", "make notebooks"),
    "explore": ("runs/bench/explore.json", "wam bench explore --run runs/occupancy --threads 2"),
}
"""By name: the file that a command leaves (with a star, one a seed: their mean is told, and the range), and the command."""

DRIVEN = {"few-label", "guidance", "student", "delay"}
"""Sources whose figures count episodes."""
COUNTED = {
    "starts_per_task": " starts a task",
    "wrong_text_episodes": " episodes",
    "transfer_gain": " pairs",
    "kept_out": " chunks",
    "chunks": " chunks",
    "episodes": " episodes",
    **{name: " repeats" for name in ("turns", "diffusion_turns", "smolvla_turns")},
}
"""By count or figure: what the others count, where that is not windows."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """source: whose file. figure: its key there. n: which of several counts belongs to it. least: at least `target`,
    which a control has none of: it is shown, whatever it says."""

    source: str
    figure: str
    says: str
    target: float | None = None
    least: bool = True
    n: str = ""
    digits: int = 2
    unit: str = ""

    def holds(self, value: float) -> bool:
        if self.target is None:
            return True
        return value >= self.target if self.least else value <= self.target


def at_most(**fields: Any) -> Row:
    return Row(**fields, least=False)


ROWS = (
    at_most(source="demo", figure="wall_minutes", says="demo, wall time after installation", target=15, unit=" min"),
    Row(source="demo", figure="success_mean", says="demo, mean success, unseen starts", target=0.85, n="starts_per_task"),
    Row(source="demo", figure="success_worst", says="demo, success of the worst task", target=0.7, n="starts_per_task"),
    Row(source="demo", figure="forward_gain_db", says="demo, forward dynamics over copying the last frame", target=3,
        n="play_windows", unit=" dB"),
    Row(source="demo", figure="imagine_gain_db", says="demo, imagined without actions over copying", target=1.5,
        n="expert_windows", unit=" dB"),
    Row(source="demo", figure="action_sensitivity", says="demo, error with shuffled over true actions, changed pixels",
        target=1.8, n="play_windows", unit="×"),
    Row(source="demo", figure="inverse_r2_gain", says="demo, inverse dynamics, R² over guessing", target=0.3,
        n="play_windows"),
    at_most(source="demo", figure="wrong_text_success", says="demo, success under the wrong sentence", target=0.15,
            n="wrong_text_episodes"),
    Row(source="metaworld-cpu", figure="success_mean", says="75-minute recipe, mean success", target=0.85, digits=3,
        n="starts_per_task"),
    Row(source="metaworld-cpu", figure="action_sensitivity", says="75-minute recipe, shuffled over true actions", target=3,
        n="play_windows", unit="×"),
    Row(source="metaworld-cpu", figure="inverse_r2_gain", says="75-minute recipe, inverse dynamics, R² over guessing",
        target=0.45, n="play_windows"),
    Row(source="metaworld-cpu", figure="forward_gain_db", says="75-minute recipe, forward dynamics over copying", target=5,
        n="play_windows", unit=" dB"),
    at_most(source="metaworld-cpu", figure="train_minutes", says="75-minute recipe, training", digits=0,
            unit=" min"),
    Row(source="metaworld-cpu", figure="success_worst", says="75-minute recipe, success of the worst task",
        n="starts_per_task"),
    Row(source="no-future", figure="success_mean", says="control without a future stream, mean success", digits=3,
        n="starts_per_task"),
    Row(source="cloning", figure="success_mean", says="control, small L1 cloning, mean success", digits=3,
        n="starts_per_task"),
    at_most(source="blind", figure="action_sensitivity", says="control blind to actions, shuffled over true (must fail)",
            target=1.05, n="play_windows", unit="×"),
    Row(source="blind", figure="success_mean", says="control blind to actions, mean success", n="starts_per_task"),
    Row(source="conditionals", figure="policy_speedup", says="policy without the future, over joint", target=3, unit="×"),
    Row(source="cache", figure="cached_speedup", says="cached over uncached denoising, 10 steps", target=2, unit="×"),
    at_most(source="rollout", figure="per_frame_ratio", says="cost of a frame at 256 frames over 8", target=1.15, unit="×"),
    at_most(source="step", figure="step_ratio", says="training step over a plain transformer's", target=1.15, unit="×"),
    at_most(source="loader", figure="data_wait_share", says="share of training spent waiting for data", target=0.03,
            digits=4),
    Row(source="lerobot", figure="lerobot_speedup", says="windows read, over LeRobot's dataset class", target=3, unit="×"),
    Row(source="latent-action", figure="probe_r2", says="latent actions, linear probe to the hand's motion, R²", target=0.6),
    Row(source="latent-action", figure="probe_r2_worst_axis", says="latent actions, the probe's worst axis", target=0.35),
    at_most(source="latent-action", figure="probe_r2_shuffled", says="latent actions, probe of shuffled motion", target=0.05),
    Row(source="latent-action", figure="perplexity_share", says="latent actions, evenness of code use", target=0.4),
    at_most(source="latent-action", figure="dead_codes", says="latent actions, codes never used", target=0, digits=0),
    Row(source="latent-action", figure="code_sensitivity",
        says="latent actions, held-out human scenes: shuffled over true codes", target=1.3, unit="×"),
    Row(source="latent-action", figure="transfer_gain",
        says="latent actions, a person's codes on the aligned robot clip: copied over transferred error", target=1.05,
        digits=3, unit="×"),
    Row(source="few-label", figure="success_gain_points", says="5 labelled demonstrations: pretrained over alone", target=15,
        digits=1, unit=" points"),
    Row(source="few-label", figure="success_pretrained", says="5 labelled demonstrations, pretrained: success"),
    Row(source="few-label", figure="success_alone", says="5 labelled demonstrations alone: success"),
    Row(source="occupancy", figure="iou_present", says="voxels of the present, held-out episodes, IoU", target=0.65),
    Row(source="occupancy", figure="future_gain", says="voxels half a second ahead, where they change: IoU over copying",
        target=1.5, unit="×"),
    at_most(source="bench-occupancy", figure="step_overhead", says="training step with voxels over without", target=1.25,
            unit="×"),
    at_most(source="bench-occupancy", figure="idle_overhead", says="a future, voxels not asked for, over a model without any",
            target=1.05, unit="×"),
    at_most(source="bench-occupancy", figure="painted_overhead", says="training step with coloured voxels over plain ones",
            target=1.15, unit="×"),
    Row(source="guidance", figure="kept_out", target=0.95,
        says="steering around a forbidden box: chunks kept out, of those that the plain policy sends in"),
    at_most(source="guidance", figure="success_lost_points", says="success lost by steering", target=15, digits=1,
            unit=" points"),
    *(Row(source="ablation", figure=f"success_{moved}cm_gain", digits=1, unit=" points",
          says=f"success with the voxels' loss over without, cameras moved {moved} cm and degrees")
      for moved in (0, 5, 10, 20)),
    *(Row(source="ablation", figure=f"{gate}_gain", says=f"`{gate}` with the voxels' loss over without")
      for gate in ("forward_gain_db", "inverse_r2_gain")),
    at_most(source="parity", figure="max_abs_diff", target=1e-5, digits=8,
            says="wrapped Wan, Cosmos and LTX, tiny: largest difference to the originals"),
    at_most(source="backbone", figure="step_ratio", says="training step of a wrapped Wan over diffusers' own", target=1.05,
            digits=3, unit="×"),
    Row(source="ranks", figure="speedup", target=1.6, unit="×", says="two processes training over one, one thread each"),
    at_most(source="plan", figure="median_error", target=0.30,
            says="`wam plan` against published memory and throughput, median error over systems"),
    Row(source="student", figure="retained", says="student over teacher, success, demo's tasks", target=0.95),
    Row(source="student", figure="retained_cloned", says="the same student cloned from the demonstrations alone"),
    Row(source="student", figure="retained_student_few", says="student taught on 5 demonstrations a task"),
    Row(source="student", figure="retained_cloned_few", says="cloned from 5 demonstrations a task alone"),
    at_most(source="delay", figure="rtc_loss_share", target=1 / 3,
            says="success lost at 200 ms of delay, real-time chunking over naive execution"),
    Row(source="delay", figure="naive_lost_points", says="success lost at 200 ms by naive execution", digits=1,
        unit=" points"),
    *(Row(source="delay", figure=f"success_{name}_200ms", says=f"success at 200 ms, {name.replace('_', '-')}")
      for name in ("synchronous", "naive", "rtc_prefix")),
    *(Row(source="delay", figure=f"seam_jerk_{name}_200ms", says=f"jerk where plans change, 200 ms, {name.replace('_', '-')}")
      for name in ("naive", "rtc_prefix")),
    Row(source="latency", figure="student_speedup", target=50, digits=1, unit="×",
        says="a chunk of the student (random weights, ONNX) over its teacher's in ten steps"),
    at_most(source="latency", figure="p99_ms", target=10, unit=" ms",
            says="a chunk of the student (random weights, ONNX), 99th percentile of 1000"),
    Row(source="lerobot-act", figure="act_over_student", target=2, n="turns", digits=1, unit="×",
        says="a chunk of LeRobot's ACT (default size) over one of the student, both in torch through lerobot (random weights)"),
    *(Row(source="lerobot-act", figure=f"{kind}_over_student", n=f"{kind}_turns", digits=0, unit="×",
          says=f"a chunk of LeRobot's {name} (default size, random weights) over one of the student, as above")
      for kind, name in (("diffusion", "Diffusion Policy"), ("smolvla", "SmolVLA"))),
    *(Row(source="lerobot-act", figure=f"{kind}_ms", n=f"{kind}_turns" if kind in ("diffusion", "smolvla") else "turns",
          digits=1, unit=" ms", says=f"a chunk of {name}, through lerobot, one thread")
      for kind, name in (("student", "the student"), ("act", "ACT"), ("diffusion", "Diffusion Policy"),
                         ("smolvla", "SmolVLA"))),
    at_most(source="server", figure="overhead_ms_p50", says="a chunk from the server over a direct call, loopback, median",
            target=2, unit=" ms"),
    at_most(source="server", figure="fairness", says="32 clients: slowest over median", target=1.5, unit="×"),
    at_most(source="server", figure="rss_growth_mb", says="the server's growth in memory while it is soaked", target=20,
            digits=1, unit=" MB"),
    Row(source="openpi", figure="success", n="episodes", says="a student served to the real openpi-client, button: success"),
    at_most(source="openpi", figure="largest_difference", n="chunks", target=0, digits=0,
            says="its chunks over the wire, against the policy asked directly: largest difference"),
    at_most(source="fuzz-server", figure="crashes", says="10,000 fuzzed frames to the server: crashes", target=0, digits=0),
    at_most(source="fuzz-guard", figure="escaped", says="10,000 fuzzed chunks through the guard: commands out of limits",
            target=0, digits=0),
    at_most(source="explore", figure="answer_seconds_p95", target=2, unit=" s", digits=3,
            says="the page of `wam explore`: a changed push to its imagined frames and voxels, 95th percentile"),
    at_most(source="notebooks", figure="minutes", says="all notebooks from clean, two cores", target=10, digits=1, unit=" min"),
    Row(source="curate", figure="realtime_per_core", says="curation of 256-pixel video, times real time, per core", target=20,
        digits=1, unit="×"),
    Row(source="curate", figure="decode_efficiency", says="curation's reading over the decoder alone", target=0.8),
    at_most(source="curate", figure="cost_growth", says="curation's cost per clip, 10,000 over 100 clips", target=1.1,
            unit="×"),
)  # fmt: skip


def collect(root: Path) -> list[str]:
    """Take what runs/ has into docs/results/; the names that were taken."""
    taken = []
    for name, (path, _) in SOURCES.items():
        runs = [found for one in sorted(root.glob(path)) if (found := read(one)) is not None]
        if not runs:
            continue
        kept = {k: runs[-1].get(k) for k in KEPT} | joined([figures_of(run) for run in runs])
        kept["seeds"] = [seed for run in runs for seed in run.get("seeds") or []]
        write_json(root / "docs" / "results" / f"{name}.json", kept)
        taken.append(name)
    return taken


def figures_of(found: Mapping[str, Any]) -> dict[str, float]:
    return found.get("figures") or {k: v for k, v in found.items() if isinstance(v, int | float)}


def joined(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Figures of one run as they are; of several, their mean, with the least and the greatest as `range`."""
    if len(runs) == 1:
        return {"figures": dict(runs[0])}
    values = {name: [run[name] for run in runs if name in run] for name in runs[0]}
    return {
        "figures": {name: sum(found) / len(found) for name, found in values.items()},
        "range": {name: [min(found), max(found)] for name, found in values.items()},
    }


def read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError as error:
        raise expected(f"JSON in {path}", got=error, do="run its command again") from error


def table(root: Path) -> str:
    """Markdown, one line a figure, from docs/results/."""
    found = {name: read(root / "docs" / "results" / f"{name}.json") for name in SOURCES}
    lines = ["| figure | value | target | n | command | machine, date |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        lines.append(line(row, found[row.source]))
    return "\n".join(lines)


def line(row: Row, found: Mapping[str, Any] | None) -> str:
    figures = (found or {}).get("figures") or {}
    target = "" if row.target is None else f"{'≥' if row.least else '≤'} {row.target:.3g}{row.unit}"
    cells = [f"{row.says} (`{row.figure}`)", NOT_YET, target, "", f"`{SOURCES[row.source][1]}`", ""]
    if found is not None and row.figure in figures:
        cells[1] = value(row, figures[row.figure], (found.get("range") or {}).get(row.figure))
        cells[3], cells[5] = count(row, found), machine(found)
    return f"| {' | '.join(cells)} |"


def value(row: Row, figure: float | None, spread: Sequence[float] | None = None) -> str:
    if figure is None or not math.isfinite(figure):
        return "**not finite**"
    text = f"{figure:.{row.digits}f}{row.unit}"
    if spread:
        text += f" ({spread[0]:.{row.digits}f} to {spread[1]:.{row.digits}f})"
    return text if row.holds(figure) else f"**{text}, missed**"


def count(row: Row, found: Mapping[str, Any]) -> str:
    n, seeds = found.get("n"), found.get("seeds")
    chosen = n.get(row.n or row.figure) if isinstance(n, Mapping) else n
    measured = " windows" if row.n or isinstance(n, Mapping) else " repeats"
    if row.source in DRIVEN:
        measured = " seams" if row.figure.startswith("seam") else " episodes"
    kind = COUNTED.get(row.n or row.figure, measured) if chosen is not None else ""
    parts = [] if chosen is None else [f"{chosen}{kind}"]
    if seeds:
        parts.append(f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds")
    return ", ".join(parts)


def machine(found: Mapping[str, Any]) -> str:
    hardware = found.get("hardware") or {}
    cores = hardware.get("cores")
    parts = [f"{cores} core{'' if cores == 1 else 's'}"] if cores else []
    parts += [hardware["processor"]] if hardware.get("processor") else []
    parts += [hardware["accelerator"]] if hardware.get("accelerator") else []
    parts += [f"{found['threads']} thread(s)"] if found.get("threads") else []
    parts += [str(found["date"])[:10]] if found.get("date") else []
    return ", ".join(parts) or "not recorded"


def filled(readme: str, root: Path) -> str:
    """The README with the lines between the two comments replaced."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise expected(f"{BEGIN} and {END} once each in README.md", got="another order or number", do="put them back")
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table(root)}\n\n{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(), help="folder of README.md, docs/ and runs/")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if README.md is not up to date")
    options = parser.parse_args(arguments)
    path = options.root / "README.md"
    try:
        taken = [] if options.check else collect(options.root)
        old = path.read_text()
        new = filled(old, options.root)
    except (WamError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.check:
        sys.stdout.write("README.md is up to date\n" if old == new else "README.md is not what docs/results/ says\n")
        return int(old != new)
    write_bytes(path, new.encode())
    missing = new.count(NOT_YET)
    sys.stdout.write(f"took {', '.join(taken) or 'nothing new'} from runs/; {missing} figures {NOT_YET}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
