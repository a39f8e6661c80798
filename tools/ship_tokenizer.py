"""Put a trained latent-action tokenizer into the repository: its files, its figures, and the table of its card.

    .venv/bin/python tools/ship_tokenizer.py runs/latent-action-human

The run has to be evaluated (`wam eval latent-action`) after its last checkpoint. Prose of the card stays as it is: read it
again, since what it says of the figures is not checked.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from wam.contracts import WamError, expected
from wam.evaluation.figures import MEANINGS, Figure
from wam.files import write_bytes, write_json
from wam.progress import duration
from wam.training.state import newest_checkpoint

FOLDER = Path("tokenizers/latent_action")
FILES = ("config.yaml", "model.safetensors", "provenance.json", "statistics.json")
KEPT = ("figures", "n", "seeds", "hardware", "date", "version", "threads")
BEGIN, END = "<!-- figures: written by tools/ship_tokenizer.py -->", "<!-- end of figures -->"


def ship(run: Path, folder: Path = FOLDER) -> None:
    checkpoint = newest_checkpoint(run)
    measured = run / "evaluation" / "latent-action" / "summary.json"
    if not measured.is_file() or measured.stat().st_mtime < (checkpoint / "model.safetensors").stat().st_mtime:
        raise expected(
            f"figures of {checkpoint} in {measured}", got="none as new", do=f"run `wam eval latent-action {run}` first"
        )
    card = (folder / "README.md").read_text()
    if BEGIN not in card or END not in card:
        raise expected(f"{BEGIN} and {END} in {folder / 'README.md'}", got="no such lines", do="put them in")
    summary = json.loads(measured.read_text())
    provenance = json.loads((checkpoint / "provenance.json").read_text())
    before, after = card.split(BEGIN)[0], card.split(END)[1]
    for name in FILES:
        write_bytes(folder / name, (checkpoint / name).read_bytes())
    write_json(folder / "figures.json", {name: summary[name] for name in KEPT if name in summary})
    write_bytes(folder / "README.md", f"{before}{BEGIN}\n{table(summary, provenance)}\n{END}{after}".encode())


def table(summary: dict[str, Any], provenance: dict[str, Any]) -> str:
    trained, hardware = provenance["config"], summary["hardware"]
    figures = [Figure(name=k, value=v, n=summary["n"].get(k, 0)) for k, v in summary["figures"].items()]
    missed = [f"`{figure.name}`" for figure in figures if figure.passed is False]
    lines = [
        f"{provenance['step']} steps of {trained['batch_size']} windows, seed {provenance['seed']}, "
        f"{duration(provenance['train_seconds'])} minutes on {trained['threads'] or 'all'} thread(s). Measured "
        f"{summary['date'][:10]} on {hardware['processor']}. Missed: {', '.join(missed) or 'none'}.",
        "",
        "| figure | value | target | n | what it says |",
        "|---|---|---|---|---|",
    ]
    for f in sorted(figures, key=lambda f: f.target is None):
        target = "" if f.target is None else f"{'>=' if f.target[0] == 'at least' else '<='} {f.target[1]:g}"
        lines.append(f"| `{f.name}` | {f.value:.3f} | {target} | {f.n} | {MEANINGS.get(f.name, 'along this axis')} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of stage=latent-action, evaluated")
    try:
        ship(parser.parse_args().run)
    except WamError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
