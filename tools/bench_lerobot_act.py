"""LeRobot's ACT beside wam's student: what a chunk of actions costs each, from the same observation.

    make bench-lerobot                                # runs this too
    .venv-lerobot/bin/python tools/bench_lerobot_act.py [--run RUN] [--json FILE]

Both are policies of LeRobot's here, loaded and asked by its own functions: preprocessor, network, postprocessor, on one
thread of torch in one process, in turns. ACT has its default size (ResNet-18, width 512, 100 actions) and statistics to
scale by; beside it, ACT with the student's chunk, and the student in ONNX where onnxruntime is installed. Weights are random,
which cost the same; with --run the student is a distilled one. Exits with status 1 if the figure misses its target.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lerobot
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.envs.utils import preprocess_observation
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.factory import get_policy_class
from lerobot.utils.import_utils import register_third_party_plugins

from wam.contracts import WamError
from wam.control.lerobot import export_lerobot
from wam.evaluation.bench.latency import CAMERAS, IN_A_ROW, example_observation, millions
from wam.evaluation.bench.timing import Target, time_in_turns
from wam.evaluation.summary import write_summary
from wam.model.student import Student, StudentConfig
from wam.training.state import newest_checkpoint

TARGET = Target(value=2.0)
Chunk = Callable[[], Any]


def pipeline(policy: Any, before: Any, after: Any, batch: dict[str, Any]) -> Chunk:
    """A chunk (B, K, A) in the dataset's units from a batch of LeRobot's."""

    def plan() -> Any:
        with torch.inference_mode():
            return after(policy.predict_action_chunk(before(dict(batch))))

    return plan


def load_student(folder: Path) -> tuple[Any, Any, Any]:
    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    return policy, *make_pre_post_processors(config, pretrained_path=str(folder))


def make_act(inputs: dict[str, PolicyFeature], outputs: dict[str, PolicyFeature], **sizes: int) -> tuple[Any, Any, Any]:
    """ACT as LeRobot makes it by default, but for ImageNet's weights, which are not needed for timing."""
    config = ACTConfig(
        input_features=inputs, output_features=outputs, device="cpu", pretrained_backbone_weights=None, **sizes
    )
    shapes = {k: (3, 1, 1) if f.type is FeatureType.VISUAL else f.shape for k, f in {**inputs, **outputs}.items()}
    stats = {key: {"mean": torch.zeros(shape), "std": torch.ones(shape)} for key, shape in shapes.items()}
    policy = get_policy_class("act")(config).eval()
    return policy, *make_pre_post_processors(config, dataset_stats=stats)


def compare(run: Path | None, *, repeats: int, folder: Path) -> dict[str, Any]:
    if run is None:
        torch.manual_seed(0)
        made = Student(StudentConfig(views=len(CAMERAS)))
        made.save_pretrained(folder / "student", cameras=CAMERAS, provenance={"random": True})
    checkpoint = folder / "student" if run is None else newest_checkpoint(run)
    plain = Student.from_pretrained(checkpoint)
    export_lerobot(checkpoint, folder / "lerobot")
    ours = load_student(folder / "lerobot")
    inputs, outputs, chunk = ours[0].config.input_features, ours[0].config.output_features, plain.config.chunk
    act, short = make_act(inputs, outputs), make_act(inputs, outputs, chunk_size=chunk, n_action_steps=chunk)
    seen = example_observation(plain)
    pixels = {name: image[None] for name, image in seen.images.items()}
    batch = {**preprocess_observation({"pixels": pixels, "agent_pos": seen.state}), "task": [seen.instruction]}

    contestants: dict[str, Chunk] = {
        "act": pipeline(*act, batch),
        "act_same_chunk": pipeline(*short, batch),
        "student": in_a_row(pipeline(*ours, batch)),
    }
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        from wam.control.export import export_student
        from wam.control.exported import ExportedPolicy

        export_student(plain, folder / "onnx")
        exported = ExportedPolicy(folder / "onnx")
        contestants["student_onnx"] = in_a_row(lambda: exported.act([seen]))
    timings = time_in_turns(contestants, repeats=repeats)
    found = {name: timings.compare("act", name) for name in ("student", "student_onnx") if name in contestants}
    found["same_chunk"] = timings.compare("act_same_chunk", "student")
    figures = {
        "act_over_student": IN_A_ROW * found["student"]["ratio"],
        "cpu_ratio": IN_A_ROW * found["student"]["cpu_ratio"],
        "same_chunk_over_student": IN_A_ROW * found["same_chunk"]["ratio"],
        "act_ms": 1e3 * timings.median("act"),
        "student_ms": 1e3 * timings.median("student") / IN_A_ROW,
    }
    if "student_onnx" in found:
        figures["act_over_student_onnx"] = IN_A_ROW * found["student_onnx"]["ratio"]
        figures["student_onnx_ms"] = 1e3 * timings.median("student_onnx") / IN_A_ROW
    return {
        "figures": figures,
        "detail": {
            "lerobot_version": lerobot.__version__,
            "act_millions": millions(act[0]),
            "student_millions": millions(plain),
            "act_chunk": act[0].config.chunk_size,
            "student_chunk": chunk,
            "image": [len(plain.cameras), plain.config.image_size, plain.config.image_size],
            "student_chunks_a_turn": IN_A_ROW,
            "run": None if run is None else str(run),
            **found,
        },
    }


def in_a_row(plan: Chunk) -> Chunk:
    """Several chunks a turn, so that a student is timed as it runs and not as it starts after another's work."""

    def repeat() -> None:
        for _ in range(IN_A_ROW):
            plan()

    return repeat


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a distilled run, else a student of the default size")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    a = parser.parse_args()
    torch.set_num_threads(1)
    register_third_party_plugins()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = compare(a.run, repeats=a.repeats, folder=Path(folder))
        except WamError as error:
            sys.stderr.write(f"{error}\n")
            return 2
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    name = "act_over_student"
    missed = [] if TARGET.holds(found["figures"][name]) else [name]
    if a.json:
        extra = {"bench": "lerobot-act", "threads": 1, "targets": {name: asdict(TARGET)}, "missed": missed}
        write_summary(a.json, found["figures"], n=a.repeats, seeds=[0], extra={**extra, "detail": found["detail"]})
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
