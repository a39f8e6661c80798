"""The plan for many accelerators: sums that can be checked by hand, and shapes on paper that cost what real tensors cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.test_plan import tiny
from wam.cli.main import main
from wam.contracts import WamError
from wam.settings import load_settings, save_settings
from wam.training.cluster import STRATEGIES, Workload, memory, samples_per_second, step_seconds, windows_that_fit
from wam.training.cluster_plan import Cell, ClusterPlan, cluster_plan, launch_line
from wam.training.config import TrainConfig
from wam.training.count import count_flops, saved_bytes
from wam.training.hardware import ACCELERATORS, accelerator
from wam.training.on_paper import HALF_SHARE, _on_meta, workload
from wam.training.without_data import make_without_data

WAN = Path("configs/train/wan2.2-5b-libero.yaml")
SMOLVLM = Path("configs/train/smolvlm2-500m-libero.yaml")
H100 = accelerator("h100")


def model(parameters: float = 7.5e9, **changes: float) -> Workload:
    fields = {
        "parameters": parameters,
        "trainable": parameters,
        "averaged": 0.0,
        "layer": parameters / 32,
        "beside": 0.0,
        "companions": 0.0,
        "flops": 6 * parameters * 1000,
        "activations": 1e9,
        "inside": 0.0,
        "passed": 1e9,
    }
    return Workload(**(fields | changes))  # type: ignore[arg-type]


def states(work: Workload, strategy: str, count: int) -> float:
    held = memory(work, strategy, count=count, windows=1)
    return sum(held[name] for name in ("weights", "gradients", "optimizer", "averaged copy"))


def test_model_states_are_those_of_the_zero_paper() -> None:
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters in 16 bits, 12 bytes of optimizer state each, 64 devices."""
    work = model(weight=2, gradient=2, moment=4, moments=3)
    assert states(work, "ddp", 64) == pytest.approx(120e9)
    assert states(work, "zero3", 64) == pytest.approx(1.9e9, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 511),
    strategy=st.sampled_from(STRATEGIES),
    parameters=st.floats(1e8, 1e11),
    name=st.sampled_from(sorted(ACCELERATORS)),
)
def test_another_accelerator_never_needs_more_memory_on_each(
    count: int, strategy: str, parameters: float, name: str
) -> None:
    work = model(parameters)
    assert states(work, strategy, count + 1) <= states(work, strategy, count) * (1 + 1e-9)
    device = accelerator(name)
    fits = [windows_that_fit(work, device, strategy, count=n, most=64) for n in (count + 1, count + 2)]
    assert fits[0] <= fits[1]


@settings(max_examples=40, deadline=None)
@given(strategy=st.sampled_from(STRATEGIES), name=st.sampled_from(sorted(ACCELERATORS)), windows=st.integers(1, 64))
def test_eight_are_at_most_eight_times_as_fast(strategy: str, name: str, windows: int) -> None:
    work, device = model(), accelerator(name)
    one, eight = (samples_per_second(work, device, strategy, count=n, windows=windows) for n in (1, 8))
    if strategy == "ddp":
        assert eight <= 8 * one * (1 + 1e-9)
    assert eight > 0


def test_traffic_between_nodes_costs_only_what_arithmetic_does_not_hide() -> None:
    slow, fast = model(flops=1.0, passed=0.0), model(flops=1e16)
    one_card = accelerator("4090")
    a, b = (step_seconds(slow, one_card, "fsdp2", count=n, windows=1) for n in (8, 64))
    assert b > 1.8 * a
    a, b = (step_seconds(fast, H100, "fsdp2", count=n, windows=1) for n in (8, 64))
    assert b == pytest.approx(a, rel=0.01)


def test_shapes_on_paper_cost_what_real_tensors_cost() -> None:
    config = tiny()
    made = make_without_data(config)
    batch = made.batch.without("play")
    real = count_flops(made.losses, batch, "fp32"), saved_bytes(made.losses, batch, "fp32", but=made.module)
    made.module.to("meta")
    paper = _on_meta(batch)
    assert count_flops(made.losses, paper, "fp32") == real[0]
    assert saved_bytes(made.losses, paper, "fp32", but=made.module) == pytest.approx(real[1], rel=0.05)


def test_half_precision_keeps_about_the_share_that_is_assumed() -> None:
    config = tiny(batch_size=32)
    config.model.attention, config.model.width = "sdpa", 64
    made = make_without_data(config)
    full, half = (saved_bytes(made.losses, made.batch, p, but=made.module) for p in ("fp32", "bf16"))
    copies = 2 * sum(p.numel() for p in made.module.parameters() if p.ndim > 1)
    assert (half - copies) / full == pytest.approx(HALF_SHARE, abs=0.2)


@pytest.fixture(scope="module")
def planned() -> ClusterPlan:
    return cluster_plan(load_settings(TrainConfig, WAN), WAN, devices=["h100", "4090"])


class TestTheWanConfig:
    def test_it_is_planned_without_its_weights(self, planned: ClusterPlan) -> None:
        assert planned.parts["text encoder, frozen"] == pytest.approx(5.68e9, rel=0.01)
        assert planned.parts["VAE, frozen"] == pytest.approx(0.705e9, rel=0.02)
        assert planned.parts["transformer, future"] == pytest.approx(5.0e9, rel=0.02)
        assert planned.work.trainable < 0.4 * planned.work.parameters
        assert planned.work.averaged < planned.work.parameters - 4.5e9, "a frozen base has no average"

    def test_checkpointing_takes_memory_for_arithmetic(self, planned: ClusterPlan) -> None:
        config = load_settings(TrainConfig, WAN, ["model.checkpointing=blocks"])
        again = cluster_plan(config, WAN, devices=["h100"], counts=[1]).work
        assert again.activations < 0.5 * planned.work.activations
        assert 1.3 < again.flops / planned.work.flops < 1.7, "a frozen base has less to do in the backward pass"

    def test_every_way_and_a_launch_line_for_one_a_node_and_many_are_printed(self, planned: ClusterPlan) -> None:
        text = str(planned)
        for words in (*STRATEGIES, "h100 (80 GiB)", "4090 (24 GiB)", "text encoder, frozen", "one node", "64 nodes"):
            assert words in text
        lines = [line for line in text.splitlines() if "accelerate launch" in line]
        assert len(lines) == 3
        for line in lines:
            assert f"wam train {WAN}" in line
            named = line.split("--config_file ")[1].split()[0]
            assert Path(named).is_file()
        assert "--num_processes 512 --num_machines 64 --machine_rank $RANK" in lines[2]


def test_a_vision_language_config_is_planned_without_its_weights() -> None:
    planned = cluster_plan(load_settings(TrainConfig, SMOLVLM), SMOLVLM, devices=["4090"], counts=[1])
    layer = 2 * 960 * 960 + 2 * 960 * 320 + 3 * 960 * 2560 + 2 * 960
    assert planned.parts["transformer, observation"] == 16 * layer
    assert planned.parts["stem, observation"] == pytest.approx(192.9e6, rel=0.01), "words, their head, pictures"
    assert planned.work.trainable == planned.work.parameters
    eight = load_settings(TrainConfig, SMOLVLM, ["optimizer.kind=adamw8bit"])
    again = cluster_plan(eight, SMOLVLM, devices=["4090"], counts=[1]).work
    assert memory(again, "ddp", count=1, windows=1)["optimizer"] == pytest.approx(2 * planned.work.trainable)


def test_the_verb_plans_for_accelerators_that_are_not_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_settings(tiny(), tmp_path / "tiny.yaml")
    words = [
        "plan",
        str(tmp_path / "tiny.yaml"),
        "--gpu",
        "h200",
        "--count",
        "8",
        "--json",
        str(tmp_path / "plan.json"),
    ]
    assert main(words) == 0
    assert "h200" in capsys.readouterr().out
    told = json.loads((tmp_path / "plan.json").read_text())
    assert told["figures"]["parameters"] > 0
    assert len(told["plan"]["cells"]) == len(STRATEGIES)


def test_a_native_model_is_planned_for_accelerators_that_are_not_here() -> None:
    config = tiny()
    found = cluster_plan(config, "x.yaml", devices=["h100"], counts=[1, 8])
    assert found.best("h100", 1).windows == 4
    assert found.work.companions == 0
    assert found.work == workload(config, make_without_data(config))


def test_what_does_not_fit_says_what_it_needs() -> None:
    cell = Cell(device="4090", strategy="ddp", count=1, windows=0, memory=100 * 2**30, samples_per_second=1.0)
    assert str(cell) == "needs 100 GiB"
    assert "does not fit" in launch_line("x.yaml", cell)
    fits = replace(cell, windows=2, count=512, strategy="zero3")
    assert "configs/accelerate/fsdp2.yaml" in launch_line("x.yaml", fits)
    assert launch_line("x.yaml", fits).endswith("batch_size=1024")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"devices": ["tpu"]}, "a100, h100"), ({"counts": [0]}, "from 1 to 512"), ({"counts": []}, "1 to")],
)
def test_unknown_accelerators_and_numbers_are_refused(options: dict, words: str) -> None:
    with pytest.raises(WamError, match=words):
        cluster_plan(tiny(), "x.yaml", **options)


def test_a_stage_that_has_no_backbone_is_refused_on_paper() -> None:
    with pytest.raises(WamError, match="joint, pretrain, posttrain"):
        cluster_plan(load_settings(TrainConfig, WAN, ["stage=cloning"]), WAN)
