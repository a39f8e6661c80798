"""`wam eval | report | imagine | bench | demo`: what a trained model can do, in numbers and pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LATENT_ACTION, OCCUPANCY, GUIDANCE = "latent-action", "occupancy", "guidance"
SKIPPED = 77
"""The status of a benchmark whose hardware is not here, as automake's tests have it."""
DELAY, STUDENT, PAIRING, ROUTING = "delay", "student", "pairing", "routing"


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "eval", help="gates, success in closed loop and pictures of a run; status 1 if a gate fails"
    )
    parser.add_argument(
        "run_folder",
        type=Path,
        metavar="[latent-action | occupancy | guidance | delay | student | pairing | routing] RUN",
        help="latent-action: a tokenizer's figures; occupancy: those of a model's voxels; guidance: "
        "steering around a box; delay: success under injected latency, by every executor; student: what a "
        "student keeps of its teacher's success; pairing: with the teacher's thoughts; routing: with the teacher where "
        "it is unsure",
    )
    parser.add_argument("--config", type=Path, help="YAML, e.g. configs/eval/demo.yaml")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. starts=50 policy_steps=1")
    parser.set_defaults(run=evaluate)

    parser = verbs.add_parser("report", help="one self-contained HTML page of a run")
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.set_defaults(run=report)

    parser = verbs.add_parser("imagine", help="a film strip of imagined futures from a dataset's frame")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run or checkpoint folder")
    parser.add_argument("--data", type=Path, help="dataset; default: the one the run was trained on")
    parser.add_argument("--episode", type=int, default=0)
    parser.add_argument("--frame", type=int, default=0)
    parser.add_argument("--instruction", help="another sentence than the episode's own")
    parser.add_argument("--actions", choices=("true", "none", "probe"), default="probe")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("imagined.png"))
    parser.set_defaults(run=imagine)

    parser = verbs.add_parser("bench", help="paired timings of one claim")
    parser.add_argument(
        "name",
        help="conditionals, cache, rollout, step, occupancy, loader, curate, latency, server, fuzz-server, fuzz-guard, "
        "parity, backbone, ranks, plan, gpu or explore",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--threads", type=int, default=1, help="of torch; 0 leaves its choice")
    parser.add_argument("--lerobot", type=Path, help="loader: figures that `make bench-lerobot` wrote")
    parser.add_argument(
        "--run", type=Path, dest="run_folder", help="latency: a distilled run, explore: any, else random weights"
    )
    parser.add_argument("--model", action="append", help="gpu: measure this one alone (again for more), e.g. native-1b")
    parser.add_argument("--soak-minutes", type=float, default=10.0, help="server: how long its memory is watched")
    parser.set_defaults(run=bench)

    parser = verbs.add_parser("demo", help="the whole chain on this machine: collect, train, evaluate, report")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.minutes=2 evaluate.starts=5")
    parser.set_defaults(run=demo)


def evaluate(options: argparse.Namespace) -> int:
    from wam.evaluation.evaluate import EvaluateConfig, place_of
    from wam.evaluation.evaluate import evaluate as run
    from wam.evaluation.summary import read_summary, write_summary
    from wam.evaluation.terminal import format_gates
    from wam.settings import load_settings

    apart = {
        LATENT_ACTION: evaluate_latent_action,
        OCCUPANCY: evaluate_occupancy,
        GUIDANCE: evaluate_guidance,
        DELAY: evaluate_delay,
        STUDENT: evaluate_student,
        PAIRING: evaluate_pairing,
        ROUTING: evaluate_routing,
    }
    named = apart.get(str(options.run_folder))
    if named is not None and options.overrides and "=" not in options.overrides[0]:
        return named(options)
    config = load_settings(EvaluateConfig, options.config, options.overrides)
    found = run(options.run_folder, config)
    print(format_gates(found.gates))
    for name, result in found.success.items():
        for task, rate in result.tasks.items():
            print(f"{name:12s} {task:42s} {rate}")
    own = place_of(options.run_folder, config) / "summary.json"
    before = read_summary(own)["figures"] if own.is_file() else {}  # say, the demo's wall time
    write_summary(own, {**before, **found.figures}, n=found.n, seeds=[found.seed])
    if options.json:
        write_summary(options.json, found.figures, n=found.n, seeds=[found.seed])
    return 0 if all(gate.passed for gate in found.gates) else 1


def evaluate_latent_action(options: argparse.Namespace) -> int:
    from wam.evaluation.latent_action.config import LatentActionEvaluateConfig
    from wam.evaluation.latent_action.evaluate import evaluate as run
    from wam.visualization.latent_action import save_evaluation

    return _measure(options, LATENT_ACTION, LatentActionEvaluateConfig, run, save_evaluation)


def evaluate_occupancy(options: argparse.Namespace) -> int:
    from wam.evaluation.occupancy import OccupancyEvaluateConfig
    from wam.evaluation.occupancy import evaluate as run
    from wam.visualization.voxels import save_evaluation

    return _measure(options, OCCUPANCY, OccupancyEvaluateConfig, run, save_evaluation)


def evaluate_guidance(options: argparse.Namespace) -> int:
    from wam.evaluation.figures import save_figures
    from wam.evaluation.guidance import GuidanceEvaluateConfig
    from wam.evaluation.guidance import evaluate as run

    return _measure(options, GUIDANCE, GuidanceEvaluateConfig, run, save_figures)


def evaluate_delay(options: argparse.Namespace) -> int:
    from wam.evaluation.delay import DelayEvaluateConfig
    from wam.evaluation.delay import evaluate as run
    from wam.evaluation.figures import save_figures

    return _measure(options, DELAY, DelayEvaluateConfig, run, save_figures)


def evaluate_student(options: argparse.Namespace) -> int:
    from wam.evaluation.figures import save_figures
    from wam.evaluation.student import StudentEvaluateConfig
    from wam.evaluation.student import evaluate as run

    return _measure(options, STUDENT, StudentEvaluateConfig, run, save_figures)


def evaluate_pairing(options: argparse.Namespace) -> int:
    from wam.evaluation.figures import save_figures
    from wam.evaluation.pairing import PairingEvaluateConfig
    from wam.evaluation.pairing import evaluate as run

    return _measure(options, PAIRING, PairingEvaluateConfig, run, save_figures)


def evaluate_routing(options: argparse.Namespace) -> int:
    from wam.evaluation.figures import save_figures
    from wam.evaluation.routing import RoutingEvaluateConfig
    from wam.evaluation.routing import evaluate as run

    return _measure(options, ROUTING, RoutingEvaluateConfig, run, save_figures)


def _measure(
    options: argparse.Namespace, name: str, kind: type[Any], run: Callable[..., Any], save: Callable[..., list[Path]]
) -> int:
    """An evaluation with figures and a folder of its own: print them, save them with what was drawn, judge them."""
    from wam.evaluation.figures import format_figures
    from wam.settings import load_settings

    folder, overrides = Path(options.overrides[0]), options.overrides[1:]
    config = load_settings(kind, options.config, overrides)
    found = run(folder, config)
    print(format_figures(found.figures, title=name, unmeasured=found.unmeasured))
    place = Path(config.output) if config.output else folder / "evaluation" / name
    for picture in save(found, place, seed=config.seed, also=options.json):
        print(picture)
    return 0 if found.passed else 1


def report(options: argparse.Namespace) -> None:
    from wam.visualization.report import write_report

    print(write_report(options.run_folder))


def imagine(options: argparse.Namespace) -> None:
    from wam.visualization.imagine import ImagineRequest, imagine_picture

    request = ImagineRequest(
        run=options.run_folder,
        data=options.data,
        episode=options.episode,
        frame=options.frame,
        instruction=options.instruction,
        actions=options.actions,
        steps=options.steps,
        seed=options.seed,
    )
    print(imagine_picture(request, options.output))


def bench(options: argparse.Namespace) -> int:
    import torch

    from wam.evaluation.bench.gpu import NotMeasuredError
    from wam.evaluation.bench.registry import describe, run_bench

    if options.threads:
        torch.set_num_threads(options.threads)
    asked: dict[str, dict[str, Any]] = {
        "loader": {"lerobot": options.lerobot},
        "latency": {"run": options.run_folder},
        "server": {"soak_minutes": options.soak_minutes},
        "explore": {"run": options.run_folder},
        "gpu": {"models": options.model},
    }
    extra = {name: value for name, value in asked.get(options.name, {}).items() if value}
    try:
        result = run_bench(options.name, options.json, others={"explore": bench_explore}, **extra)
    except NotMeasuredError as error:
        print(f"wam bench {options.name}: {error}", file=sys.stderr)
        return SKIPPED
    print(describe(result))
    return 1 if result.missed else 0


def bench_explore(**options: Any) -> Any:
    """See `wam.explore.bench`, a room above the other benches, which needs the packages of the extra `serve`."""
    from wam.explore.bench import bench_explore as run

    return run(**options)


def demo(options: argparse.Namespace) -> int:
    from wam.cli.demo import DemoConfig, run_demo
    from wam.settings import load_settings

    config = load_settings(DemoConfig, options.config, options.overrides)
    return run_demo(config, options.output)
