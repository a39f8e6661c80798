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

    parser = verbs.add_parser(
        "export",
        help="a student as ONNX graphs or a program of torch.export, checked; any policy as a folder of LeRobot's",
    )
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="run or checkpoint folder; of a student but for lerobot"
    )
    parser.add_argument("--format", choices=("onnx", "torch", "lerobot"), default="onnx")
    parser.add_argument(
        "--precision", choices=("fp32", "int8"), default="fp32", help="int8: weights of layers, ONNX only"
    )
    parser.add_argument("--steps", type=int, default=0, help="of sampling; default: 1, and 4 of a world-action model's")
    parser.add_argument("--execute", type=int, default=0, help="lerobot: actions carried out of each chunk; default: 6")
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
    from wam.files import sha256
    from wam.training.state import newest_checkpoint

    checkpoint = newest_checkpoint(options.run_folder)
    folder = options.output or options.run_folder / f"export-{options.format}-{options.precision}"
    source = {"checkpoint": str(checkpoint), "sha256": sha256(checkpoint / "model.safetensors")}
    write = export_to_lerobot if options.format == "lerobot" else export_student
    print(write(options, checkpoint, folder, source))


def export_student(options: argparse.Namespace, checkpoint: Path, folder: Path, source: dict[str, str]) -> str:
    from wam.contracts import expected
    from wam.control.export import export_student as write
    from wam.model.student import Student

    if options.execute:
        raise expected("--execute with --format lerobot", got=options.format, do="leave it out")
    found = write(
        Student.from_pretrained(checkpoint),
        folder,
        format=options.format,
        precision=options.precision,
        steps=options.steps or 1,
        source=source,
    )
    return (
        f"{found.bytes / 2**20:.1f} MiB in {found.folder}; at most {found.error:.2g} and on average {found.mean_error:.2g} "
        f"from torch on {found.checked} random inputs, in units of an action's usual range"
    )


def export_to_lerobot(options: argparse.Namespace, checkpoint: Path, folder: Path, source: dict[str, str]) -> str:
    from wam.contracts import expected
    from wam.control.lerobot import export_lerobot

    if options.precision != "fp32":
        raise expected("precision fp32 for LeRobot", got=options.precision, do="use format onnx for int8")
    policy = export_lerobot(checkpoint, folder, steps=options.steps, execute=options.execute, source=source)
    random = "" if policy.model.provenance.get("random") is False else "  RANDOM WEIGHTS"
    return f"{folder}: chunks of {policy.chunk} from {', '.join(policy.cameras)}; lerobot-eval --policy.path={folder}{random}"
