"""Benchmarks: contestants take turns, the comparison is of equals, and what is found stands in a summary."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from wam.contracts import WamError
from wam.evaluation.bench.published import PUBLISHED, gpt, ltx_video
from wam.evaluation.bench.registry import BENCHES, describe, run_bench
from wam.evaluation.bench.step import PlainTransformer, stream_inputs
from wam.evaluation.bench.timing import BenchResult, Target, Timings, time_in_turns
from wam.evaluation.summary import read_summary
from wam.model.backbones.catalogue import CATALOGUE
from wam.model.config import ModelConfig, OccupancyConfig
from wam.model.context import Context
from wam.model.joint import JointTransformer, StreamInput
from wam.model.rope import chunk_positions, rotary_table
from wam.model.student import StudentConfig
from wam.model.synthetic import synthetic_batch
from wam.model.visibility import VisibilityTable
from wam.model.wam import WorldActionModel
from wam.training.config import TrainConfig

CPU = torch.device("cpu")


def tiny(**changes: Any) -> ModelConfig:
    config = ModelConfig(width=32, depth=2, heads=2, head_dim=16, image_size=16, **changes)
    for stream in config.streams.values():
        stream.grid, stream.stem_width = 4, 8
    return config


SMALL: dict[str, dict[str, Any]] = {
    "conditionals": {"config": tiny(), "batch_sizes": (1, 2), "repeats": 2, "device": CPU},
    "cache": {"config": tiny(), "batch_size": 2, "steps": 3, "repeats": 2, "device": CPU},
    "rollout": {"config": tiny(visibility="causal", history=2), "frames": 12, "few": 4, "repeats": 2, "device": CPU},
    "step": {"config": tiny(), "batch_size": 2, "repeats": 2, "device": CPU},
    "occupancy": {
        "config": tiny(occupancy=OccupancyConfig(loss_weight=1.0)),
        "batch_size": 4,
        "repeats": 2,
        "device": CPU,
    },
    "loader": {
        "config": TrainConfig(model=tiny(), batch_size=4),
        "steps": 3,
        "episodes": 10,
        "length": 14,
        "repeats": 1,
        "seconds": 0.1,
    },
    "curate": {"videos": None, "seconds": 2.0, "repeats": 1, "few": 4, "many": 12},
    "fuzz-guard": {"chunks": 60},
    "server": {"config": tiny(), "repeats": 3, "clients": 3, "seconds": 0.3, "soak_minutes": 0.01},
    "fuzz-server": {"frames": 60, "every": 20},
    "latency": {
        "config": tiny(),
        "student": StudentConfig(width=32, channels=8),
        "steps": 2,
        "repeats": 2,
        "chunks": 4,
    },
    "parity": {"names": ["wan2.2-ti2v-5b", "ltx-video", "smolvlm2-500m"], "shapes": [(2, 4, 4)]},
    "backbone": {
        "configs": {"cosmos-predict2-2b": CATALOGUE["cosmos-predict2-2b"].tiny},
        "shape": (2, 4, 4),
        "repeats": 2,
        "device": CPU,
    },
    "ranks": {"steps": 4, "warmup": 1, "repeats": 1, "batch_size": 4, "precision": "fp32"},
    "gpu": {
        "models": ("native-nano", "wan-nano"),
        "train_steps": 2,
        "chunks": 3,
        "precision": "fp32",
        "compiled": False,
        "peak": 1e12,
        "device": CPU,
    },
    "plan": {"rows": [r for r in PUBLISHED if r.system in ("GPT-2, nanoGPT", "LTX-Video, finetrainers")]},
}

PROMISED = {
    "conditionals": {"policy_speedup": Target(value=3.0)},
    "cache": {"cached_speedup": Target(value=2.0)},
    "rollout": {"per_frame_ratio": Target(value=1.15, at_least=False)},
    "step": {"step_ratio": Target(value=1.15, at_least=False)},
    "occupancy": {
        "step_overhead": Target(value=1.25, at_least=False),
        "idle_overhead": Target(value=1.05, at_least=False),
        "painted_overhead": Target(value=1.15, at_least=False),
    },
    "loader": {"data_wait_share": Target(value=0.03, at_least=False)},
    "curate": {
        "realtime_per_core": Target(value=20.0),
        "decode_efficiency": Target(value=0.8),
        "cost_growth": Target(value=1.1, at_least=False),
    },
    "fuzz-guard": {
        "escaped": Target(value=0, at_least=False),
        "crashed": Target(value=0, at_least=False),
        "plain_moved": Target(value=0.9),
    },
    "server": {
        "overhead_ms_p50": Target(value=2.0, at_least=False),
        "fairness": Target(value=1.5, at_least=False),
        "rss_growth_mb": Target(value=20.0, at_least=False),
    },
    "fuzz-server": {"crashes": Target(value=0, at_least=False)},
    "latency": {"student_speedup": Target(value=50.0), "p99_ms": Target(value=10.0, at_least=False)},
    "parity": {"max_abs_diff": Target(value=1e-5, at_least=False)},
    "backbone": {"step_ratio": Target(value=1.05, at_least=False)},
    "ranks": {"speedup": Target(value=1.6)},
    "gpu": {
        "mfu": Target(value=0.45),
        "policy_ms": Target(value=20.0, at_least=False),
        "joint_ms": Target(value=150.0, at_least=False),
    },
    "plan": {"median_error": Target(value=0.30, at_least=False)},
}
NEEDS = {"server": "websockets", "fuzz-server": "websockets"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in NEEDS else n for n in BENCHES])
def test_every_benchmark_gives_its_figures_and_a_summary_of_them(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    if name == "latency":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    result = run_bench(name, tmp_path / "bench.json", **SMALL[name])
    summary = read_summary(tmp_path / "bench.json")
    assert result.targets == PROMISED[name]
    assert set(result.targets) <= set(result.figures)
    assert all(math.isfinite(value) and value >= 0 for value in result.figures.values())
    assert summary["figures"] == result.figures
    assert (summary["bench"], summary["n"], summary["missed"]) == (name, result.n, result.missed)
    assert summary["threads"] == torch.get_num_threads()
    assert {"hardware", "date", "version", "detail"} <= set(summary)


def test_contestants_take_turns_and_none_is_always_first() -> None:
    ran: list[str] = []
    timings = time_in_turns({n: lambda n=n: ran.append(n) for n in "ab"}, repeats=4, warmup=1)  # type: ignore[misc]
    rounds = ["".join(ran[i : i + 2]) for i in range(0, len(ran), 2)]
    assert len(rounds) == 5
    assert set(rounds) == {"ab", "ba"}
    assert all(one != two for one, two in itertools.pairwise(rounds))
    assert {name: len(seconds) for name, seconds in timings.wall.items()} == {"a": 4, "b": 4}


def test_a_ratio_is_the_median_of_rounds_and_not_of_times() -> None:
    """Three rounds, the machine ten times slower in the second: each round says 2."""
    seconds = {"slow": [2.0, 20.0, 2.2], "fast": [1.0, 10.0, 1.1]}
    found = Timings(wall=seconds, cpu={"slow": [3.0] * 3, "fast": [1.0] * 3}).compare("slow", "fast")
    assert found["ratio"] == pytest.approx(2)
    assert found["cpu_ratio"] == pytest.approx(3)
    assert found["slow_ms"] == pytest.approx(2200)


def test_the_plain_transformer_is_the_joint_one_with_a_single_stream() -> None:
    config = tiny()
    plain = PlainTransformer(config)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    joint = JointTransformer(
        widths={"future": config.width},
        depth=config.depth,
        heads=config.heads,
        head_dim=config.head_dim,
        condition_width=config.condition_width,
        mlp_ratios={"future": config.streams["future"].mlp_ratio},
    )
    joint.experts["future"].load_state_dict(plain.blocks.state_dict())
    h, condition = torch.randn(2, 9, config.width), torch.randn(2, 1, config.condition_width)
    rotary = rotary_table(chunk_positions(torch.arange(9)), config.head_dim)
    alone = VisibilityTable(sees={"future": {"future": "yes"}})
    out, _ = joint({"future": StreamInput(h=h, condition=condition, rotary=rotary)}, alone)
    assert torch.equal(plain(h, condition, rotary), out["future"])


def test_the_step_benchmark_runs_the_very_tokens_of_the_model() -> None:
    config = tiny()
    inputs = stream_inputs(WorldActionModel(config).network, 2, CPU)
    lengths = {s: x.h.shape[1] for s, x in inputs.items()}
    assert lengths == {"text": 12, "observation": 16, "state": 1, "future": 16, "action": 12}
    assert all(x.h.requires_grad for x in inputs.values())


def test_uncached_sampling_computes_the_context_once_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = WorldActionModel(tiny()).eval()
    batch = synthetic_batch(model.config, 2)
    context, calls, compute = model.context(batch), [], model.network.context

    def counted(*args: Any, **options: Any) -> Context:
        calls.append(1)
        return compute(*args, **options)

    monkeypatch.setattr(model.network, "context", counted)
    model.policy(batch, steps=5)
    assert len(calls) == 1
    model.policy(batch, steps=5, cached=False, context=context)
    assert len(calls) == 6


def test_what_was_measured_against_lerobot_joins_the_loader(tmp_path: Path) -> None:
    measured = tmp_path / "lerobot.json"
    with pytest.raises(WamError, match="make bench-lerobot"):
        run_bench("loader", **SMALL["loader"], lerobot=measured)
    measured.write_text('{"figures": {"lerobot_speedup": 2.5}, "lerobot_version": "0.4.0"}')
    result = run_bench("loader", **SMALL["loader"], lerobot=measured)
    assert result.figures["lerobot_speedup"] == 2.5
    assert "lerobot_speedup" in result.missed
    assert result.detail["lerobot"]["lerobot_version"] == "0.4.0"


def test_a_missed_target_is_said() -> None:
    result = BenchResult(
        name="cache", figures={"speed": 1.5, "other": 3}, detail={}, n=3, targets={"speed": Target(value=2)}
    )
    assert result.missed == ["speed"]
    assert "speed 1.5   target >= 2: MISSED" in describe(result)
    assert "other 3\n" in describe(result) + "\n"
    assert Target(value=1.15, at_least=False).holds(1.1)


def test_an_unknown_benchmark_names_those_there_are() -> None:
    with pytest.raises(WamError, match="conditionals, cache, rollout, step, occupancy, loader"):
        run_bench("speed")


def test_a_rank_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wam.evaluation.bench.ranks.WORKER", "wam.no_such_module")
    with pytest.raises(WamError, match="No module named"):
        run_bench("ranks", repeats=1)


def test_the_plan_is_held_against_published_figures() -> None:
    result = run_bench("plan", **SMALL["plan"])
    assert result.n == 2
    assert result.figures["systems"] == 2
    for one in result.detail["figures"]:
        assert one["error"] == pytest.approx(one["planned"] / one["published"] - 1)
        assert one["source"]
    assert result.figures["median_error"] == pytest.approx(
        sum(abs(one["error"]) for one in result.detail["figures"]) / 2
    )


def test_published_networks_have_the_published_size() -> None:
    assert gpt(4096, 32, 32, tokens=2048, vocabulary=50368).parameters == pytest.approx(6658859008, rel=0.001)
    assert ltx_video(9, 64, 64).parameters == 1923385472
    assert len({row.system for row in PUBLISHED}) >= 4
