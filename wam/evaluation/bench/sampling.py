"""What sampling saves: the future dropped from the policy, the context computed once, and a cache that rolls."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from wam.evaluation.bench.timing import BenchResult, Target, default_device, time_in_turns
from wam.model.config import ModelConfig
from wam.model.rollout import Rollout
from wam.model.synthetic import synthetic_batch
from wam.model.wam import WorldActionModel


def bench_config(**changes: Any) -> ModelConfig:
    """The default model with a future of 8 x 8 tokens for each view. The demo joins its views to be quick, and holds so
    few tokens that Python's overhead would be timed in place of the design."""
    config = ModelConfig(**changes)
    config.streams["future"].grid, config.streams["future"].join_views = 8, False
    return config


def make_model(config: ModelConfig | None, device: torch.device) -> WorldActionModel:
    """A model of the benches' size, or of the given config; its weights are random, which costs the same."""
    torch.manual_seed(0)
    return WorldActionModel(config or bench_config()).to(device).eval()


def bench_conditionals(
    *,
    config: ModelConfig | None = None,
    steps: int = 4,
    batch_sizes: Sequence[int] = (1, 8),
    repeats: int = 15,
    device: torch.device | None = None,
) -> BenchResult:
    """policy_speedup: joint over policy with the future dropped, equal denoising steps, context included; the worst of
    the batch sizes."""
    device = device or default_device()
    model = make_model(config, device)
    detail = {}
    for size in batch_sizes:
        batch = synthetic_batch(model.config, size).to(device)
        timings = time_in_turns(
            {
                "joint": lambda batch=batch: model.joint(batch, steps=steps),  # type: ignore[misc]
                "policy": lambda batch=batch: model.policy(batch, steps=steps),  # type: ignore[misc]
            },
            repeats=repeats,
            device=device,
        )
        detail[f"batch_{size}"] = timings.compare("joint", "policy")
    return BenchResult(
        name="conditionals",
        figures={"policy_speedup": min(found["ratio"] for found in detail.values())},
        detail={"steps": steps, **detail},
        n=repeats,
        targets={"policy_speedup": Target(value=3.0)},
    )


def bench_cache(
    *,
    config: ModelConfig | None = None,
    steps: int = 10,
    batch_size: int = 8,
    repeats: int = 9,
    device: torch.device | None = None,
) -> BenchResult:
    """cached_speedup: the policy with its context recomputed at every denoising step over the same with it computed
    once. joint_cached_speedup: the same for joint sampling, where denoising the future costs more than the context."""
    device = device or default_device()
    model = make_model(config, device)
    batch = synthetic_batch(model.config, batch_size).to(device)
    context = model.context(
        batch
    )  # given to the uncached runs, so that they recompute it `steps` times and not once more
    timings = time_in_turns(
        {
            "policy_uncached": lambda: model.policy(batch, steps=steps, cached=False, context=context),
            "policy_cached": lambda: model.policy(batch, steps=steps),
            "joint_uncached": lambda: model.joint(batch, steps=steps, cached=False, context=context),
            "joint_cached": lambda: model.joint(batch, steps=steps),
        },
        repeats=repeats,
        device=device,
    )
    policy = timings.compare("policy_uncached", "policy_cached")
    joint = timings.compare("joint_uncached", "joint_cached")
    return BenchResult(
        name="cache",
        figures={"cached_speedup": policy["ratio"], "joint_cached_speedup": joint["ratio"]},
        detail={"steps": steps, "batch_size": batch_size, "policy": policy, "joint": joint},
        n=repeats,
        targets={"cached_speedup": Target(value=2.0)},
    )


def bench_rollout(
    *,
    config: ModelConfig | None = None,
    frames: int = 256,
    few: int = 8,
    steps: int = 2,
    repeats: int = 9,
    device: torch.device | None = None,
) -> BenchResult:
    """per_frame_ratio: what a frame costs once `frames` have been imagined, over what it costs once `few` have."""
    device = device or default_device()
    model = make_model(config or bench_config(visibility="causal", history=4, history_stride=4), device)
    early = Rollout(model, synthetic_batch(model.config, 1).to(device), steps=steps)
    per_chunk = len(model.config.future)
    chunks = max(1, few // per_chunk)

    def imagined(world: Rollout, count: int) -> Rollout:
        world = copy.copy(world)  # steps replace what it holds and change nothing in place
        for _ in range(count):
            world.imagine()
        return world

    early = imagined(early, chunks)
    late = imagined(early, max(1, frames // per_chunk) - chunks)
    timings = time_in_turns(
        {"late": lambda: imagined(late, chunks), "early": lambda: imagined(early, chunks)},
        repeats=repeats,
        device=device,
    )
    found = timings.compare("late", "early")
    return BenchResult(
        name="rollout",
        figures={"per_frame_ratio": found["ratio"]},
        detail={
            "frames": late.chunks * per_chunk,
            "few": early.chunks * per_chunk,
            "window": early.window,
            "steps": steps,
            "cached": early.cached,
            "per_frame_ms": 1e3 * timings.median("late") / (chunks * per_chunk),
            **found,
        },
        n=repeats,
        targets={"per_frame_ratio": Target(value=1.15, at_least=False)},
    )
