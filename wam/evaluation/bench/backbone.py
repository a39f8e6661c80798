"""Is a wrapped pretrained network the original, and what does the wrapping cost?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wam.evaluation.bench.timing import BenchResult, Target, default_device, time_in_turns
from wam.model.backbones.catalogue import CATALOGUE
from wam.model.backbones.load import Backbone, build_backbone, load_backbone
from wam.model.backbones.parity import Example, Wrapped, difference, draw_example, original_forward
from wam.model.backbones.vlm.catalogue import VLMS
from wam.model.backbones.vlm.load import VlmBackbone
from wam.model.backbones.vlm.parity import difference as vlm_difference
from wam.model.backbones.vlm.parity import draw_example as draw_prompts

SHAPES = ((3, 4, 6), (1, 8, 4), (5, 2, 2))
"""Frames, height and width of latents."""

PROMPTS = ((1, 1, (5,)), (2, 1, (0, 7, 3)), (2, 2, (4, 4)))
"""Views, times and letters of each row's sentence."""

SIZE = {"num_attention_heads": 4, "attention_head_dim": 64, "num_layers": 4}
"""Of the networks that are timed, as wide as a native stream of a larger model; what belongs to the family stays."""
TIMED: Mapping[str, Mapping[str, Any]] = {
    "wan2.1-t2v-1.3b": {**SIZE, "ffn_dim": 1024, "text_dim": 256},
    "wan2.2-ti2v-5b": {**SIZE, "ffn_dim": 1024, "text_dim": 256},
    "cosmos-predict2-2b": {**SIZE, "text_embed_dim": 256, "adaln_lora_dim": 32},
    "ltx-video": {**SIZE, "cross_attention_dim": 256, "caption_channels": 256},
}


def bench_parity(
    *, names: Sequence[str] = (*CATALOGUE, *VLMS), shapes: Sequence[tuple[int, int, int]] = SHAPES, seed: int = 0
) -> BenchResult:
    """max_abs_diff: the largest absolute difference from the original in float32 with tiny random weights of the same class,
    and the same by name: of a prediction from diffusers' own, over shapes, with one clock for all frames and with one for each;
    of a vision-language model's last hidden states from transformers', over `PROMPTS`, padded together and each row alone."""
    found: dict[str, float] = {}
    compared = 0
    for name in names:
        torch.manual_seed(seed)
        backbone = load_backbone(name, "tiny")
        if isinstance(backbone, VlmBackbone):
            examples = [draw_prompts(backbone, views=v, times=t, lengths=n, seed=seed) for v, t, n in PROMPTS]
            differences = [vlm_difference(backbone, example) for example in examples]
        else:
            known = backbone.description
            differences = [
                difference(backbone, draw_example(known, size=2, shape=shape, per_frame=per_frame, seed=seed))
                for shape in shapes
                for per_frame in (False, True)
            ]
        found[name], compared = max(differences), compared + len(differences)
    return BenchResult(
        name="parity",
        figures={**found, "max_abs_diff": max(found.values())},
        detail={
            "shapes": [list(shape) for shape in shapes],
            "prompts": [list(prompt) for prompt in PROMPTS],
            "dtype": "float32",
        },
        n=compared,
        targets={"max_abs_diff": Target(value=1e-5, at_least=False)},
        seeds=(seed,),
    )


def bench_backbone(
    *,
    configs: Mapping[str, Mapping[str, Any]] = TIMED,
    shape: tuple[int, int, int] = (3, 16, 16),
    batch_size: int = 2,
    repeats: int = 15,
    device: torch.device | None = None,
) -> BenchResult:
    """step_ratio: forward and backward of Wan's wrapped network over diffusers' own, float32, one clock for all frames as in
    Wan2.1; then of the other families, and (NAME/frames) with a clock for each frame."""
    device = device or default_device()
    detail: dict[str, Any] = {}
    for name, config in configs.items():
        known = CATALOGUE[name]
        torch.manual_seed(0)
        backbone = build_backbone(
            {"class": known.kind, "config": {**known.config, **config}},
            name=name,
            provenance={"source": name, "revision": None, "sha256": None, "random": True},
        )
        for per_frame in (False, True) if backbone.description.per_frame else (False,):
            example = draw_example(backbone.description, size=batch_size, shape=shape, per_frame=per_frame)
            detail[f"{name}/frames" if per_frame else name] = _compare(backbone, example, repeats, device)
    first = next(iter(detail.values()))
    return BenchResult(
        name="backbone",
        figures={"step_ratio": first["ratio"], **{name: found["ratio"] for name, found in detail.items()}},
        detail={"latents": list(shape), "batch_size": batch_size, **detail},
        n=repeats,
        targets={"step_ratio": Target(value=1.05, at_least=False)},
    )


def _compare(backbone: Backbone, example: Example, repeats: int, device: torch.device) -> dict[str, Any]:
    backbone.network.to(device)
    fields = {name: value for name, value in vars(example).items() if value is not None}
    example = Example(**{name: value.to(device) for name, value in fields.items()})
    wrapped = Wrapped(copy.deepcopy(backbone))
    timings = time_in_turns(
        {
            "wrapped": _step(wrapped, lambda: wrapped(example)),
            "original": _step(backbone.network, lambda: original_forward(backbone, example)),
        },
        repeats=repeats,
        device=device,
    )
    return timings.compare("wrapped", "original")


def _step(module: nn.Module, forward: Callable[[], Tensor]) -> Callable[[], None]:
    def step() -> None:
        forward().square().mean().backward()
        for parameter in module.parameters():
            parameter.grad = None

    return step
