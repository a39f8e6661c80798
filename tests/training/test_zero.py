"""ZeRO by DeepSpeed: two processes train as one, checkpoints are those of any other way, what is not supported is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from tests.training.test_ranks import ROOT, furthest, launch, losses
from tests.training.test_trainer import assert_same, weights
from tests.training.two_ranks import STEPS, STOP, Uneven, in_four_shares, run_config, train_until
from wam.contracts import WamError
from wam.training.spread import make_accelerator, spread
from wam.training.stages.joint import JointStage
from wam.training.state import last_checkpoint, load_training
from wam.training.trainer import train

FILE = ROOT / "configs" / "accelerate" / "deepspeed-zero2.yaml"
LAUNCHER = (
    "accelerate.commands.launch",
    "--config_file",
    str(FILE),
    "--num_processes",
    "2",
    "--main_process_port",
    "0",
)


@pytest.fixture(scope="module")
def runs(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process and of two under DeepSpeed."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed; pip install 'wam[deepspeed]'")
    out = tmp_path_factory.mktemp("zero")
    train(run_config(toy, out / "one", 1))
    train_until(run_config(toy, out / "one-then-zero2", 1), STOP)
    train(in_four_shares(toy, out / "one-in-four", 1))
    train(run_config(toy, out / "one-bf16", 1, precision="bf16"))
    train(run_config(toy, out / "one-uneven", 1), make=Uneven)
    launch("tests.training.two_ranks", "zero", toy, out, launcher=(*LAUNCHER, "--module"))
    return out


class TestTwoRanks:
    def test_they_lose_what_one_does_that_accumulates_both_shares(self, runs: Path) -> None:
        assert json.loads((runs / "zero.json").read_text())["engines"][0] == "DeepSpeedEngine"
        assert len(losses(runs / "zero2")) == STEPS
        assert losses(runs / "zero2") == pytest.approx(losses(runs / "one"), rel=1e-5)
        assert furthest(runs / "one", runs / "zero2") < 1e-5
        checks = [line for line in (runs / "zero2" / "metrics.jsonl").read_text().splitlines() if "check/" in line]
        assert len(checks) == 1

    def test_each_has_the_moments_of_its_half(self, runs: Path) -> None:
        assert json.loads((runs / "zero.json").read_text())["share"] == pytest.approx(0.5, rel=1e-3)

    def test_zero_1_and_accumulation_come_to_the_same(self, runs: Path) -> None:
        assert losses(runs / "zero1-in-four") == pytest.approx(losses(runs / "one-in-four"), rel=1e-5)
        assert furthest(runs / "one-in-four", runs / "zero1-in-four") < 1e-5

    def test_a_rank_may_leave_out_what_the_other_trains(self, runs: Path) -> None:
        assert losses(runs / "zero2-uneven") == pytest.approx(losses(runs / "one-uneven"), rel=1e-5)
        assert furthest(runs / "one-uneven", runs / "zero2-uneven") < 1e-5

    def test_bf16_is_the_autocast_of_one_process_over_weights_in_float32(self, runs: Path) -> None:
        assert json.loads((runs / "zero.json").read_text())["autocast"] == ["torch.bfloat16"]
        assert losses(runs / "zero2-bf16") == pytest.approx(losses(runs / "one-bf16"), rel=1e-4)
        assert furthest(runs / "one-bf16", runs / "zero2-bf16") < 1e-3  # a sum that is rounded the other way
        kept = [value for value in weights(runs / "zero2-bf16").values() if value.is_floating_point()]
        assert {value.dtype for value in kept} == {torch.float32}
        assert any(not torch.equal(value, value.bfloat16().float()) for value in kept)

    def test_a_gradient_that_is_not_finite_stops_the_run(self, runs: Path) -> None:
        assert "at step 2, got a gradient that is not" in json.loads((runs / "zero.json").read_text())["refused"]
        assert last_checkpoint(runs / "zero2-bad") is None

    def test_a_run_that_does_not_ask_for_it_is_data_parallel_again(self, runs: Path) -> None:
        assert json.loads((runs / "zero.json").read_text())["engines"][1] == "DistributedDataParallel"


class TestCheckpoints:
    def test_they_are_those_of_one_process(self, runs: Path) -> None:
        found = []
        for name in ("one", "zero2"):
            run = last_checkpoint(runs / name)
            assert run is not None
            found.append(load_training(run / "training"))
            files = {path.name for path in run.rglob("*") if path.is_file()}
            assert not [file for file in files if Path(file).suffix in (".pt", ".bin", ".pkl")]
        (one, state), (two, other) = found
        for kind in one:
            for name, value in one[kind].items():
                assert torch.allclose(value.float(), two[kind][name].float(), rtol=1e-3, atol=1e-5), (kind, name)
            beyond = [value for name, value in two[kind].items() if name not in one[kind] and value.ndim]
            assert not any(value.any() for value in beyond), "moments of what had no gradient"
            assert kind == "optimizer" or not beyond
        assert state["optimizer"] == other["optimizer"]

    def test_one_process_goes_on_where_a_signal_to_one_rank_stopped_both(self, toy: Path, runs: Path) -> None:
        run = runs / "zero2-then-one"
        stopped = last_checkpoint(run)
        assert stopped is not None
        assert load_training(stopped / "training")[1]["step"] == STOP
        train(run_config(toy, run, 1))
        assert losses(run) == pytest.approx(losses(runs / "one"), rel=1e-5)
        assert furthest(runs / "one", run) < 1e-5

    def test_two_go_on_where_one_stopped(self, runs: Path) -> None:
        run = runs / "one-then-zero2"
        assert losses(run) == pytest.approx(losses(runs / "one"), rel=1e-5)
        assert furthest(runs / "one", run) < 1e-5

    def test_two_go_on_where_they_stopped_bit_for_bit(self, runs: Path) -> None:
        assert losses(runs / "zero2-then-zero2") == losses(runs / "zero2")
        assert_same(weights(runs / "zero2-then-zero2"), weights(runs / "zero2"))


class TestRefused:
    @pytest.fixture(autouse=True)
    def as_if_launched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wam.training.zero.is_deepspeed_available", lambda: True)
        monkeypatch.setattr("wam.training.zero.PartialState", lambda cpu: SimpleNamespace(num_processes=2))

    def test_without_the_package(self, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wam.training.zero.is_deepspeed_available", lambda: False)
        with pytest.raises(WamError, match=r"package deepspeed.*pip install 'wam\[deepspeed\]'"):
            make_accelerator(run_config(toy, tmp_path, 2, sharding="zero2"))

    def test_a_launch_for_it_too(self, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wam.training.zero.is_deepspeed_available", lambda: False)
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        with pytest.raises(WamError, match="package deepspeed"):
            make_accelerator(run_config(toy, tmp_path, 2))

    def test_one_process(self, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wam.training.zero.PartialState", lambda cpu: SimpleNamespace(num_processes=1))
        with pytest.raises(WamError, match="several processes"):
            make_accelerator(run_config(toy, tmp_path, 2, sharding="zero2"))

    def test_muon(self, toy: Path, tmp_path: Path) -> None:
        config = run_config(toy, tmp_path, 2, sharding="zero2")
        config.optimizer.kind = "muon"
        accelerator = SimpleNamespace(distributed_type=DistributedType.DEEPSPEED)
        with pytest.raises(WamError, match="whole matrices"):
            spread(JointStage(config), config, accelerator)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("told", "sentence"),
        [
            ({"ZERO_STAGE": "3"}, "stage 1 or 2, got stage 3"),
            ({"OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "DeepSpeed's offload"),
            ({"CONFIG_FILE": '{"zero_optimization": {"stage": 2}, "bf16": {"enabled": true}}'}, "weights in float32"),
        ],
    )
    def test_what_a_launch_may_ask_for_beyond(
        self, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], sentence: str
    ) -> None:
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        for name, value in told.items():
            monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
        with pytest.raises(WamError, match=sentence):
            make_accelerator(run_config(toy, tmp_path, 2))

    def test_two_ways_at_once(self, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        with pytest.raises(WamError, match="one way to spread"):
            make_accelerator(run_config(toy, tmp_path, 2, sharding="fsdp2"))

    def test_shared_windows(self, toy: Path, tmp_path: Path) -> None:
        with pytest.raises(WamError, match="whole windows on each rank"):
            make_accelerator(run_config(toy, tmp_path, 2, sharding="zero2", context_parallel=2))

    def test_fp16(self, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        with pytest.raises(WamError, match="bf16 under DeepSpeed"):
            make_accelerator(run_config(toy, tmp_path, 2, sharding="zero2", precision="fp16"))
