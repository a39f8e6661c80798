"""`wam data info | stats | doctor | convert`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from wam.progress import Progress


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("data", help="look at, check and convert datasets")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, run, text in (
        ("info", info, "what a dataset holds"),
        ("stats", stats, "statistics of every feature, without decoding video; rewrites meta/stats.json"),
        ("doctor", doctor, "find flipped images, wrong signs, offsets, broken frames; status 1 if something is wrong"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("root", type=Path)
        action.add_argument("--json", type=Path, help="also write the answer to this file")
        action.set_defaults(run=run)
        if name == "doctor":
            action.add_argument("--no-replay", action="store_true", help="do not replay actions in the simulator")
    action = actions.add_parser("convert", help="LeRobot v2, RLDS, HDF5 or videos to LeRobot v3.0")
    action.add_argument("source", type=Path)
    action.add_argument("target", type=Path)
    action.add_argument("--format", default="auto")
    action.add_argument("--fps", type=float)
    action.add_argument("--limit", type=int, help="the first episodes only")
    action.add_argument("--task", help="a sentence for episodes that have none")
    action.add_argument("--skip-damaged", action="store_true")
    action.set_defaults(run=convert)


def info(options: argparse.Namespace) -> None:
    from wam.data.info import describe, description_text

    found = describe(options.root)
    print(description_text(found))
    _save(options.json, found)


def stats(options: argparse.Namespace) -> None:
    from wam.data.info import statistics_text, update_statistics

    found = update_statistics(options.root)
    print(statistics_text(found))
    _save(options.json, found.to_json())


def doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from wam.evaluation.doctor import examine

    diagnosis = examine(options.root, replay=not options.no_replay)
    print("\n".join(diagnosis.lines()))
    _save(options.json, asdict(diagnosis))
    return 0 if diagnosis.healthy else 1


def convert(options: argparse.Namespace) -> None:
    from wam.data.convert import convert as run

    with Progress("episodes", 1) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        found = run(
            options.source,
            options.target,
            format=options.format,
            fps=options.fps,
            limit=options.limit,
            task=options.task,
            skip_damaged=options.skip_damaged,
            resume=(options.target / "meta").exists(),
            progress=show,
        )
    print("\n".join(found.notes))
    print(f"{found.episodes} episodes, {found.frames} frames of {found.format} in {found.root}")


def _save(path: Path | None, value: object) -> None:
    if path is not None:
        from wam.files import write_bytes

        write_bytes(path, (json.dumps(value, indent=2, default=str) + "\n").encode())
