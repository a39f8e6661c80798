"""Put a trained world-action model into the repository: its weights at a byte each, and a card with the figures of these.

    .venv/bin/python tools/ship_model.py runs/metaworld-cpu/seed-0 notebooks/model
    .venv/bin/wam eval notebooks/model --config configs/eval/metaworld-cpu.yaml
    .venv/bin/python tools/ship_model.py runs/metaworld-cpu/seed-0 notebooks/model    # again: now the card has figures

The folder is a checkpoint and works wherever a run does. `--without-colour` leaves out the heads that say the colours of
voxels, which nothing else reads. What rounding costs is seen in the card, which lays the run's own figures beside those of
the folder; of a model with voxels, those of `wam eval occupancy` too. Prose of the card stays as it is: read it again,
since what it says of the figures is not checked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wam.checkpoint import PROVENANCE, STORAGE, WEIGHTS, Checkpoint
from wam.contracts import WamError, expected
from wam.evaluation.artefacts import load_gates
from wam.evaluation.figures import Figure, meaning
from wam.evaluation.summary import read_summary
from wam.evaluation.words import words_for
from wam.files import sha256, write_bytes, write_json
from wam.progress import duration
from wam.training.state import newest_checkpoint

LIMIT = 10_000_000
"""Bytes: what one file under version control may weigh."""
NOT_YET = "Not measured yet."
KEPT = ("figures", "n", "seeds", "hardware", "date", "version")
BEGIN, END = "<!-- figures: written by tools/ship_model.py -->", "<!-- end of figures -->"
VOXELS = Path("evaluation") / "occupancy" / "summary.json"
SUCCESS = {
    "success_mean": "episodes that succeed, mean of the tasks, from unseen starts and told unseen sentences",
    "success_worst": "of its worst task",
}

PROSE = """# {title}

One world-action model of {streams}. Its matrices are stored as int8 with a scale for each row and become float32 on loading.

```python
import wam

model = wam.load("{folder}", data="DATASET")
```

## How it was made

{made}

## What was measured

{begin}
{end}
"""


def ship(run: Path, folder: Path, *, colour: bool = True) -> bool:
    """Write the weights unless they are there, then the card. Returns whether it has figures: those of other weights are put
    away. colour: with the heads that say the colours of voxels, where there are any."""
    source = newest_checkpoint(run)
    before = sha256(source / WEIGHTS)
    if not (folder / PROVENANCE).is_file() or _provenance(folder).get("rounded_from") != before:
        ship_weights(source, folder, rounded_from=before, colour=colour)
    if not (folder / "README.md").is_file():
        write_bytes(folder / "README.md", prose(folder).encode())
    card = (folder / "README.md").read_text()
    if BEGIN not in card or END not in card:
        raise expected(f"{BEGIN} and {END} in {folder / 'README.md'}", got="no such lines", do="put them in")
    figures = measured(run, folder) or kept(folder)
    if figures is None:
        (folder / "figures.json").unlink(missing_ok=True)
        part = NOT_YET
    else:
        write_json(folder / "figures.json", figures)
        part = table(figures, _provenance(folder))
    top, bottom = card.split(BEGIN)[0], card.split(END)[1]
    write_bytes(folder / "README.md", f"{top}{BEGIN}\n{part}\n{END}{bottom}".encode())
    return figures is not None


def ship_weights(source: Path, folder: Path, *, rounded_from: str, colour: bool) -> None:
    opened = Checkpoint.load(source)
    if not colour:
        model = opened.config["model"]
        opened = replace(
            opened,
            config={**opened.config, "model": {**model, "occupancy": {**model["occupancy"], "colour_weight": 0.0}}},
            tensors={name: value for name, value in opened.tensors.items() if ".beside.colour." not in name},
        )
    replace(opened, provenance={**opened.provenance, "rounded_from": rounded_from}).save(folder, int8=True)
    if (size := (folder / WEIGHTS).stat().st_size) >= LIMIT:
        (folder / PROVENANCE).unlink()
        raise expected(f"weights below {LIMIT} bytes at a byte each", got=size, do="train a smaller model")


def prose(folder: Path) -> str:
    """A first card, to be written on by hand."""
    said = _provenance(folder)
    model = said["config"]["model"]
    streams = ", ".join(model["streams"]) + (" and voxels" if model["occupancy"]["loss_weight"] else "")
    made = f"`wam train` on {', '.join(said['data'])}; every setting is in `{PROVENANCE}` under `config`."
    return PROSE.format(title=folder.name, streams=streams, folder=folder, made=made, begin=BEGIN, end=END)


def measured(run: Path, folder: Path) -> dict[str, Any] | None:
    """What `figures.json` holds: figures of the folder's weights, and of the run's own. None where none are as new as the
    weights."""
    found: dict[str, Any] | None = None
    for path in (Path("summary.json"), VOXELS):
        at = folder / path
        if not at.is_file() or at.stat().st_mtime < (folder / WEIGHTS).stat().st_mtime:
            continue
        new = read_summary(at)
        if found is None:
            found = {name: new[name] for name in KEPT if name in new}
            found |= {"weights": sha256(folder / WEIGHTS), "targets": {}, "before": {}}
        else:
            found["figures"] = {**found["figures"], **new["figures"]}
            found["n"] = {**found["n"], **new["n"]}
        if (run / path).is_file():
            own = read_summary(run / path)
            found["before"] |= {name: own["figures"].get(name) for name in new["figures"]}
            found["trained_on"] = own["hardware"]["processor"]
    if found is not None:
        for gate in load_gates(folder) or []:
            found["targets"][gate.name] = [gate.direction, gate.target]
            found["n"][gate.name] = gate.n
    return found


def kept(folder: Path) -> dict[str, Any] | None:
    """The figures that the folder has already, if they are those of its weights."""
    path = folder / "figures.json"
    figures = json.loads(path.read_text()) if path.is_file() else {}
    return figures if figures.get("weights") == sha256(folder / WEIGHTS) else None


def table(found: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """The part of the card between the marks, from figures.json and provenance.json alone."""
    trained, hardware = provenance["config"], found["hardware"]
    rows, missed = [], []
    for name, value in found["figures"].items():
        if name == "train_minutes" or name.endswith("_steps"):
            continue
        n = found["n"].get(name, found["n"].get("starts_per_task", "") if name in SUCCESS else "")
        how, target = _target(name, value, found)
        before = found["before"].get(name)
        said = SUCCESS.get(name) or meaning(name) or words_for(name).title
        rows.append(f"| `{name}` | {value:.3f} | {'' if before is None else f'{before:.3f}'} | {how} | {n} | {said} |")
        if target is False:
            missed.append(f"`{name}`")
    return "\n".join(
        [
            f"{provenance['step']} steps of {trained['batch_size']} windows, seed {provenance['seed']}, "
            f"{duration(provenance['train_seconds'])} of training on {trained['threads'] or 'all'} thread(s) of "
            f"{found.get('trained_on', 'a machine not recorded')} at code {provenance['code']}. "
            f"{provenance[STORAGE]['int8']} matrices at int8. Measured {found['date'][:10]} on "
            f"{hardware['processor']}, n starts are of each task. Missed: {', '.join(missed) or 'none'}.",
            "",
            "| figure | these weights | before rounding | target | n | what it says |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _target(name: str, value: float, found: Mapping[str, Any]) -> tuple[str, bool | None]:
    """In words, and whether it is met: of a gate as it was judged, of a voxels' figure as it always is."""
    if name in found["targets"]:
        direction, target = found["targets"][name]
        least = direction == "at_least"
        return f"{'>=' if least else '<='} {target:g}", value >= target if least else value <= target
    figure = Figure(name=name, value=value, n=0)
    if figure.target is None:
        return "", None
    return f"{'>=' if figure.target[0] == 'at least' else '<='} {figure.target[1]:g}", figure.passed


def _provenance(folder: Path) -> dict[str, Any]:
    return json.loads((folder / PROVENANCE).read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of the stage joint or posttrain")
    parser.add_argument("folder", type=Path, help="e.g. notebooks/model")
    parser.add_argument("--without-colour", action="store_true", help="leave out the heads for the colours of voxels")
    options = parser.parse_args()
    try:
        done = ship(options.run, options.folder, colour=not options.without_colour)
    except WamError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    size = (options.folder / WEIGHTS).stat().st_size
    figures = "with figures" if done else f"without figures: run `wam eval {options.folder}`, then this again"
    sys.stdout.write(f"{options.folder}: {size / 1e6:.2f} MB, a card {figures}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
