"""`wam collect`: demonstrations and play from a simulator."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("collect", help="collect demonstrations and play in a simulator")
    parser.add_argument("root", type=Path, help="folder of the new dataset")
    parser.add_argument("--config", type=Path, help="YAML, e.g. configs/data/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. episodes=20 environments=[pusht/pusht]")
    parser.set_defaults(run=collect)


def collect(options: argparse.Namespace) -> None:
    from wam.progress import Progress
    from wam.settings import load_settings
    from wam.simulation.collect import collect as run
    from wam.simulation.config import CollectConfig

    config = load_settings(CollectConfig, options.config, options.overrides)
    with Progress("episodes", len(config.jobs())) as bar:
        done = run(
            config,
            options.root,
            resume=(options.root / "meta").exists(),
            progress=lambda done, total: bar.update(done),
        )
    print(f"{done.episodes} episodes, {done.frames} frames in {done.root} ({done.new} new in {done.seconds:.0f} s)")
