"""`wam distill | export`: a trained world-action model becomes a compact policy, and that the files of a robot."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("distill", help="train a compact student of a run; goes on where an earlier one stopped")
    parser.add_argument("config", type=Path, help="e.g. configs/distill/demo.yaml")
    parser.add_argument("--fresh", action="store_true", help="start anew even if the output holds a run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.minutes=2 losses.on_policy=1")
    parser.set_defaults(run=distill)

    parser = verbs.add_parser("export", help="a distilled student as ONNX graphs or a program of torch.export, checked")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run or checkpoint folder of a student")
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx")
    parser.add_argument(
        "--precision", choices=("fp32", "int8"), default="fp32", help="int8: weights of layers, ONNX only"
    )
    parser.add_argument("--steps", type=int, default=1, help="of a flow head's sampling")
    parser.add_argument("--output", type=Path, help="default: export-FORMAT-PRECISION in the run")
    parser.set_defaults(run=export)


def distill(options: argparse.Namespace) -> None:
    from wam.cli.training import say_trained
    from wam.distillation.config import DistillConfig
    from wam.distillation.stage import distill as run
    from wam.settings import load_settings

    config = load_settings(DistillConfig, options.config, options.overrides)
    say_trained(run(config, resume=not options.fresh))


def export(options: argparse.Namespace) -> None:
    from wam.control.export import export_student
    from wam.files import sha256
    from wam.model.student import Student
    from wam.training.state import newest_checkpoint

    checkpoint = newest_checkpoint(options.run_folder)
    found = export_student(
        Student.from_pretrained(checkpoint),
        options.output or options.run_folder / f"export-{options.format}-{options.precision}",
        format=options.format,
        precision=options.precision,
        steps=options.steps,
        source={"checkpoint": str(checkpoint), "sha256": sha256(checkpoint / "model.safetensors")},
    )
    print(
        f"{found.bytes / 2**20:.1f} MiB in {found.folder}; at most {found.error:.2g} and on average {found.mean_error:.2g} "
        f"from torch on {found.checked} random inputs, in units of an action's usual range"
    )
