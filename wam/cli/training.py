"""`wam train | plan`: YAML in, a run out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wam.training.config import TrainConfig
    from wam.training.trainer import TrainResult


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("train", help="train from a YAML config; goes on where an earlier run stopped")
    parser.add_argument("config", type=Path, help="e.g. configs/train/quickstart.yaml")
    parser.add_argument("--fresh", action="store_true", help="start anew even if the output holds a run")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. minutes=10 model.visibility=first-frame"
    )
    parser.set_defaults(run=train)
    parser = verbs.add_parser("plan", help="parameters, memory, FLOPs, speed, time and cost of a training run")
    parser.add_argument("config", type=Path)
    parser.add_argument("--price", type=float, default=None, help="per hour of this machine, to print the cost")
    parser.add_argument(
        "--gpu", action="append", default=[], help="plan for this accelerator (again for more), e.g. h100"
    )
    parser.add_argument("--count", type=int, action="append", default=[], help="and so many of them (again for more)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.set_defaults(run=plan)


def train(options: argparse.Namespace) -> None:
    from wam.settings import load_settings
    from wam.training.config import TrainConfig
    from wam.training.trainer import train as run

    config = load_settings(TrainConfig, options.config, options.overrides)
    say_trained(run(config, resume=not options.fresh))


def say_trained(result: TrainResult) -> None:
    """What a run came to, once for all its processes."""
    from accelerate import PartialState

    from wam.progress import duration

    if not PartialState().is_main_process:
        return
    print(
        f"{result.steps} steps in {duration(result.seconds)}, {result.samples_per_second:.1f} samples/s, "
        f"data wait {100 * result.data_wait_share:.1f}%: {result.checkpoint}"
    )


def plan(options: argparse.Namespace) -> None:
    from wam.evaluation.summary import write_summary
    from wam.settings import load_settings
    from wam.training.config import TrainConfig
    from wam.training.on_paper import is_on_paper
    from wam.training.plan import plan as run

    config = load_settings(TrainConfig, options.config, options.overrides)
    if options.gpu or options.count or is_on_paper(config):
        plan_cluster(config, options)
        return
    found = run(config, price_per_hour=options.price)
    print(found)
    if options.json:
        write_summary(
            options.json, found.figures, n=len(found.timed), seeds=[config.seed], extra={"plan": found.to_dict()}
        )


def plan_cluster(config: TrainConfig, options: argparse.Namespace) -> None:
    """For accelerators that are not here, and for models whose weights are not."""
    from wam.evaluation.summary import write_summary
    from wam.training.cluster_plan import COUNTS, cluster_plan

    found = cluster_plan(config, options.config, devices=options.gpu, counts=options.count or COUNTS)
    print(found)
    if options.json:
        write_summary(options.json, found.figures, n=1, seeds=[config.seed], extra={"plan": found.to_dict()})
