"""LeRobot's ACT, Diffusion Policy and SmolVLA beside wam's student: what a chunk of actions costs each, from the same
observation.

    make bench-lerobot                                # runs this too
    .venv-lerobot/bin/python tools/bench_lerobot_act.py [--run RUN] [--json FILE]

All are policies of LeRobot's here, loaded and asked by its own functions: preprocessor, network, postprocessor, on one
thread of torch in one process, in turns. ACT has its default size (ResNet-18, width 512, 100 actions) and statistics to
scale by; beside it, ACT with the student's chunk, and the student in ONNX where onnxruntime is installed. Weights are random,
which cost the same; with --run the student is a distilled one. Exits with status 1 if the figure misses its target.

Diffusion Policy and SmolVLA take seconds to a minute a chunk, so each has few turns of its own with the student after those.
Both have their default sizes; what the packages beside lerobot lack is in `left_out`. Diffusion Policy looks at two moments and
denoises in 100 steps. SmolVLA is float32, as LeRobot makes it without pretrained weights: its language model has the shapes of
SmolVLM2-500M, and its tokenizer is trained on the one sentence, so a word is one token, as most are of the published one.
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
from lerobot.policies.factory import get_policy_class, make_policy_config
from lerobot.policies.utils import populate_queues
from lerobot.utils.constants import ACTION, OBS_IMAGES
from lerobot.utils.import_utils import register_third_party_plugins

from wam.contracts import WamError
from wam.control.lerobot import export_lerobot
from wam.evaluation.bench.latency import CAMERAS, IN_A_ROW, example_observation, millions
from wam.evaluation.bench.timing import Target, time_in_turns
from wam.evaluation.summary import write_summary
from wam.model.backbones.vlm.catalogue import VLMS
from wam.model.student import Student, StudentConfig
from wam.training.state import newest_checkpoint

TARGET = Target(value=2.0)
TURNS = {"diffusion": 3, "smolvla": 5}
NEEDS = {"diffusion": ("diffusers",), "smolvla": ("transformers", "num2words", "accelerate")}
"""Packages beside lerobot, of its extras of the same names."""
VLM = "smolvlm2-500m"
Chunk = Callable[[], Any]
Features = dict[str, PolicyFeature]


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


def make_theirs(kind: str, inputs: Features, outputs: Features, **settings: Any) -> tuple[Any, Any, Any]:
    """A policy as LeRobot makes it by default but for `settings`, at random, with its two processors."""
    config = make_policy_config(kind, input_features=inputs, output_features=outputs, device="cpu", **settings)
    shapes = {k: (3, 1, 1) if f.type is FeatureType.VISUAL else f.shape for k, f in {**inputs, **outputs}.items()}
    level = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0}
    stats = {key: {name: torch.full(shape, at) for name, at in level.items()} for key, shape in shapes.items()}
    policy = get_policy_class(kind)(config).eval()
    return policy, *make_pre_post_processors(config, dataset_stats=stats)


def remembering(policy: Any, before: Any, after: Any, batch: dict[str, Any]) -> Chunk:
    """The chunk (B, K, A) that Diffusion Policy plans when its actions are used up: from the last moments that it was shown."""

    def plan() -> Any:
        with torch.inference_mode():
            seen = {key: value for key, value in before(dict(batch)).items() if key != ACTION}
            seen[OBS_IMAGES] = torch.stack([seen[key] for key in policy.config.image_features], dim=-4)
            policy._queues = populate_queues(policy._queues, seen)
            return after(policy.predict_action_chunk(seen))

    return plan


def write_vlm(folder: Path, shapes: dict[str, Any], sentence: str) -> None:
    """The files that SmolVLA asks of its language model's repository, but for weights, made without a network: the config,
    and a processor whose tokenizer knows the sentence's words, the bytes, and the tokens that stand around pictures."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    SmolVLMConfig(**shapes).save_pretrained(folder)
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    pad, letters = "<|im_end|>", pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = letters
    trainer = trainers.BpeTrainer(
        initial_alphabet=letters.alphabet(), special_tokens=[pad, *named.values()], show_progress=False
    )
    words.train_from_iterator([sentence], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=pad, extra_special_tokens=named)
    SmolVLMProcessor(SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor()).save_pretrained(folder)


def lacking(kind: str) -> list[str]:
    return [package for package in NEEDS[kind] if importlib.util.find_spec(package) is None]


def make_slow(kind: str, inputs: Features, outputs: Features, batch: dict[str, Any], vlm: Path) -> tuple[Chunk, Any]:
    """What plans a chunk, and the policy. vlm: an empty folder for SmolVLA's files."""
    if kind == "diffusion":
        made = make_theirs(kind, inputs, outputs, pretrained_backbone_weights=None)
        return remembering(*made, batch), made[0]
    write_vlm(vlm, VLMS[VLM].full, batch["task"][0])
    made = make_theirs(kind, inputs, outputs, vlm_model_name=str(vlm), load_vlm_weights=False)
    return pipeline(*made, batch), made[0]


def compare_slow(
    student: Chunk, inputs: Features, outputs: Features, batch: dict[str, Any], *, repeats: int, folder: Path
) -> dict[str, Any]:
    """Diffusion Policy and SmolVLA, each in turns with `student`, which plans several chunks a turn."""
    figures: dict[str, float] = {}
    detail: dict[str, Any] = {"left_out": {kind: lacking(kind) for kind in TURNS if lacking(kind)}}
    n: dict[str, int] = {}
    for kind in (kind for kind in TURNS if kind not in detail["left_out"]):
        plan, policy = make_slow(kind, inputs, outputs, batch, folder / "vlm")
        n[f"{kind}_turns"] = min(repeats, TURNS[kind])
        timings = time_in_turns({kind: plan, "student": student}, repeats=n[f"{kind}_turns"], warmup=1)
        found = timings.compare(kind, "student")
        figures[f"{kind}_ms"] = 1e3 * timings.median(kind)
        figures[f"{kind}_over_student"] = IN_A_ROW * found["ratio"]
        c = policy.config
        detail[kind] = found
        detail[f"{kind}_millions"] = millions(policy)
        detail[f"{kind}_chunk"] = c.n_action_steps
        detail[f"{kind}_moments"] = c.n_obs_steps
        detail[f"{kind}_steps"] = policy.diffusion.num_inference_steps if kind == "diffusion" else c.num_steps
        detail[f"{kind}_dtype"] = str(next(policy.parameters()).dtype)
        detail[f"{kind}_weights"] = "random"
        if kind == "smolvla":
            detail["smolvla_image"] = list(c.resize_imgs_with_padding)
            detail["smolvla_vlm"] = f"{VLM}, the first {c.num_vlm_layers} layers"
    return {"figures": figures, "detail": detail, "n": n}


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
    plain_act = {"pretrained_backbone_weights": None}  # ImageNet's are not needed for timing
    act = make_theirs("act", inputs, outputs, **plain_act)
    short = make_theirs("act", inputs, outputs, chunk_size=chunk, n_action_steps=chunk, **plain_act)
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
    slow = compare_slow(contestants["student"], inputs, outputs, batch, repeats=repeats, folder=folder)
    return {
        "figures": {**figures, **slow["figures"]},
        "n": {"turns": repeats, **slow["n"]},
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
            **slow["detail"],
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
        write_summary(a.json, found["figures"], n=found["n"], seeds=[0], extra={**extra, "detail": found["detail"]})
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
