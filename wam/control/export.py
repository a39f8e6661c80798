"""A student as files that need no training code: ONNX graphs for onnxruntime, or a program of torch.export.

    student.onnx | student.pt2   images uint8 (B, V, T, H, W, 3), state (B, S), told (B, D) -> action (B, K, A), in raw units;
                                 of a student trained with prefixes also before (B, P, A), in raw units, and settled (B, P) bool
    text.onnx                    ids (1, L, 2) int64 of a sentence's words -> told (1, D); run once for each instruction
    export.json                  what a caller must know, the checkpoint it came from, the check's result, sha256 of each file

What is written is checked against torch on random inputs.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from wam.contracts import expected
from wam.control.exported import ABOUT, GRAPH, TEXT, session
from wam.files import sha256, write_bytes, write_json
from wam.model.student import Student
from wam.settings import to_plain
from wam.tokenizers.text import SmallTextEncoder
from wam.tokenizers.words import pad_ids, word_ids

Format = Literal["onnx", "torch"]
Precision = Literal["fp32", "int8"]
FILES: dict[Format, str] = {"onnx": GRAPH, "torch": "student.pt2"}
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "int8": 0.15}
"""Largest difference to torch that is let through, in units in which an action's usual range is -1 to 1."""
OPSET = 20
Runner = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """error: the largest and mean difference to torch on `checked` random inputs, in units of an action's usual range."""

    folder: Path
    bytes: int
    error: float
    mean_error: float
    checked: int


class Plan(nn.Module):
    """What a graph computes. A flow head starts every row from the noise of one seed, as `WamPolicy` does."""

    noise: Tensor

    def __init__(self, student: Student, *, steps: int, seed: int = 0) -> None:
        super().__init__()
        self.student, self.steps = student, steps
        self.register_buffer("noise", student.noise(1, seed=seed).clone())

    def forward(
        self, images: Tensor, state: Tensor, told: Tensor, before: Tensor | None = None, settled: Tensor | None = None
    ) -> Tensor:
        """before (B, P, A): actions that are being carried out, of which the settled (B, P) ones begin the chunk."""
        if before is None or settled is None:
            return self._planned(self.student.see(images, state, told))
        joined = self.student.joined(images, state, told)
        action = self._planned(
            self.student.going_on(joined, self.student.normalizer("action").normalize(before), settled)
        )
        return torch.cat(
            [torch.where(settled[..., None], before, action[:, : before.shape[1]]), action[:, before.shape[1] :]], 1
        )

    def _planned(self, z: Tensor) -> Tensor:
        return self.student.plan(z, self.noise.expand(z.shape[0], -1, -1), steps=self.steps)


class Told(nn.Module):
    """A sentence's ids -> what the student is told."""

    def __init__(self, text: SmallTextEncoder) -> None:
        super().__init__()
        self.text, self.met_any = text, bool(text.met.any())

    def forward(self, ids: Tensor) -> Tensor:
        tokens, mask = self.text.embed(self.text.known(ids) if self.met_any else ids)
        return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


def example_inputs(student: Student, size: int, *, seed: int) -> dict[str, Tensor]:
    """Random inputs of a graph, by name."""
    c, g = student.config, torch.Generator().manual_seed(seed)
    pictures = (size, c.views, c.history, c.image_size, c.image_size, 3)
    state = torch.randn(size, c.state_dim, generator=g)
    inputs = {
        "images": torch.randint(0, 256, pictures, dtype=torch.uint8, generator=g),
        "state": student.normalizer("state").restore(state),
        "told": torch.randn(size, student.text.width, generator=g),
    }
    if c.prefix:
        before = torch.randn(size, c.prefix, c.action_dim, generator=g)
        inputs["before"] = student.normalizer("action").restore(before)
        inputs["settled"] = torch.arange(c.prefix) < torch.randint(c.prefix + 1, (size, 1), generator=g)
    return inputs


@torch.no_grad()
def export_student(
    student: Student,
    folder: Path,
    *,
    format: Format = "onnx",
    precision: Precision = "fp32",
    steps: int = 1,
    source: Mapping[str, Any] | None = None,
    checked: int = 16,
) -> Exported:
    """Write a student and check what was written. steps: of a flow head's sampling, fixed in the graph. source: what is said
    of where it came from. Raises WamError if it differs from torch, cannot be written in this format, or is handed thoughts."""
    if format == "torch" and precision != "fp32":
        raise expected("precision fp32 for torch.export", got=precision, do="use format onnx for int8")
    if student.recall is not None:
        raise expected(
            "a student that acts alone, whose graph has pictures, state and sentence as inputs",
            got=f"one that is handed thoughts of kind {student.config.thought.kind}",
            do="distill one with student.thought.kind=none",
        )
    student = student.cpu().eval()
    plan, inputs = Plan(student, steps=steps).eval(), example_inputs(student, 2, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)
    path = folder / FILES[format]
    if format == "onnx":
        _to_onnx(plan, inputs, path, output="action")
        if precision == "int8":
            _quantize(path)
        _export_text(student, folder)
        run = onnx_runner(path)
    else:
        program = torch.export.export(plan, tuple(inputs.values()), dynamic_shapes=_any_batch(inputs))
        torch.export.save(program, path)

        again = program.module()

        def run(feed: Mapping[str, np.ndarray]) -> np.ndarray:
            return again(*(torch.from_numpy(value) for value in feed.values())).numpy()

    errors = np.concatenate([_difference(student, plan, run, seed=seed) for seed in range(checked)])
    exported = Exported(
        folder=folder,
        bytes=path.stat().st_size,
        error=float(errors.max()),
        mean_error=float(errors.mean()),
        checked=checked,
    )
    if not exported.error <= TOLERANCE[precision]:
        raise expected(
            f"{path.name} to differ from torch by at most {TOLERANCE[precision]:g}",
            got=f"{exported.error:.3g}",
            do="report it with the student's config" if precision == "fp32" else "export it with precision fp32",
        )
    c, files = student.config, [path.name] + ([TEXT] if format == "onnx" else [])
    write_json(
        folder / ABOUT,
        {
            "format": format,
            "precision": precision,
            "steps": steps,
            "student": to_plain(c),
            "cameras": list(student.cameras),
            "action_space": student.action_space.to_dict() if student.action_space else None,
            "check": {"error": exported.error, "mean_error": exported.mean_error, "inputs": checked},
            "source": dict(source or {}),
            "provenance": {k: student.provenance.get(k) for k in ("random", "teacher", "losses", "code", "seed")},
            "sha256": {name: sha256(folder / name) for name in files},
        },
    )
    return exported


def onnx_runner(path: Path) -> Runner:
    """A function from arrays by name to the graph's output, on one thread."""
    opened = session(path, threads=1)
    return lambda feed: opened.run(None, dict(feed))[0]


def _difference(student: Student, plan: Plan, run: Runner, *, seed: int) -> np.ndarray:
    inputs = example_inputs(student, 1 + seed % 3, seed=seed + 1)
    wanted = plan(*inputs.values())
    found = torch.from_numpy(run({name: value.numpy() for name, value in inputs.items()}))
    scale = student.normalizer("action").scale
    return ((found - wanted).abs() / scale).flatten().numpy()


def _any_batch(inputs: Mapping[str, Tensor]) -> tuple[dict[int, Any], ...]:
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in inputs)


def _to_onnx(
    module: nn.Module, inputs: Mapping[str, Tensor], path: Path, *, output: str, any_batch: bool = True
) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=_any_batch(inputs) if any_batch else None,
            verbose=False,
        )
    assert program is not None
    write_bytes(path, program.model_proto.SerializeToString())


def _quantize(path: Path) -> None:
    """Weights of layers to 8 bits, each in place; activations follow at run time."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[
        :
    ]  # the exporter's optimiser leaves shapes of what it folded, which shape inference refuses
    write_bytes(path, model.SerializeToString())
    logging.disable(logging.WARNING)  # it asks for a preparation that would undo the above
    try:
        quantize_dynamic(
            path, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True
        )
    finally:
        logging.disable(logging.NOTSET)


def _export_text(student: Student, folder: Path) -> None:
    text = student.text
    if not isinstance(text, SmallTextEncoder):
        raise expected(
            "a student whose text encoder was learned with it, for ONNX",
            got="a pretrained one",
            do="distill with student.text.kind=small, or use format torch and give the sentence's features",
        )
    ids = torch.tensor(pad_ids([word_ids("open it", text.vocabulary, text.max_words)], text.max_words))
    told = Told(text).eval()
    _to_onnx(told, {"ids": ids}, folder / TEXT, output="told", any_batch=False)
    found = torch.from_numpy(onnx_runner(folder / TEXT)({"ids": ids.numpy()}))
    if not torch.allclose(found, told(ids), atol=1e-4):
        raise expected(
            f"{TEXT} to give what torch gives", got=f"{(found - told(ids)).abs().max():.3g} apart", do="report it"
        )
