"""Two processes train as one: equal losses, checkpoints that either goes on from, weights in one place or spread over both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.training.test_trainer import weights
from tests.training.two_ranks import STEPS, STOP, Drawless, run_config, train_until
from wam.contracts import WamError
from wam.training.state import last_checkpoint, load_training
from wam.training.trainer import train

ROOT = Path(__file__).parents[2]


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")


def launch(module: str, *words: str | Path, launcher: Sequence[str] = TORCHRUN) -> None:
    """Two processes of a module, by torchrun if no other launcher is named."""
    command = [sys.executable, "-m", *launcher, module]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-6000:]


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]


def furthest(one: Path, two: Path) -> float:
    """The largest difference between two runs' averaged weights."""
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    return max((a[name].float() - b[name].float()).abs().max().item() for name in a if a[name].numel())


@pytest.fixture(scope="module")
def alone(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process: a whole one, and two stopped halfway for two processes to go on with."""
    out = tmp_path_factory.mktemp("ranks")
    train(run_config(toy, out / "one", 1))
    for name in ("one-then-two", "one-then-sharded"):
        train_until(run_config(toy, out / name, 1), STOP)
    return out


@pytest.fixture(scope="module")
def data_parallel(toy: Path, alone: Path) -> Path:
    train(run_config(toy, alone / "one-batch-drawless", 2), make=Drawless)
    launch("tests.training.two_ranks", "data_parallel", toy, alone)
    return alone


@pytest.fixture(scope="module")
def sharded(toy: Path, alone: Path) -> Path:
    launch("tests.training.two_ranks", "sharded", toy, alone)
    return alone


class TestDataParallel:
    def test_two_ranks_lose_what_one_does_that_accumulates_both_shares(self, data_parallel: Path) -> None:
        assert len(losses(data_parallel / "one")) == STEPS
        assert losses(data_parallel / "two") == pytest.approx(losses(data_parallel / "one"), rel=1e-5)
        assert furthest(data_parallel / "one", data_parallel / "two") < 1e-5

    def test_without_random_draws_they_lose_what_one_does_on_the_whole_batch(self, data_parallel: Path) -> None:
        whole = losses(data_parallel / "one-batch-drawless")
        assert losses(data_parallel / "two-drawless") == pytest.approx(whole, rel=1e-5)
        assert furthest(data_parallel / "one-batch-drawless", data_parallel / "two-drawless") < 1e-5

    def test_a_signal_to_one_rank_stops_both_at_the_same_step_and_one_goes_on(
        self, toy: Path, data_parallel: Path
    ) -> None:
        run = data_parallel / "two-then-one"
        stopped = last_checkpoint(run)
        assert stopped is not None
        assert load_training(stopped / "training")[1]["step"] == STOP
        train(run_config(toy, run, 1))
        assert losses(run) == pytest.approx(losses(data_parallel / "one"), rel=1e-5)
        assert furthest(data_parallel / "one", run) < 1e-5

    def test_two_go_on_where_one_stopped(self, data_parallel: Path) -> None:
        run = data_parallel / "one-then-two"
        assert losses(run) == pytest.approx(losses(data_parallel / "one"), rel=1e-5)
        assert furthest(data_parallel / "one", run) < 1e-5

    def test_words_met_on_either_rank_are_known(self, data_parallel: Path) -> None:
        met = [value for name, value in weights(data_parallel / "two").items() if name.endswith("encoder.met")]
        assert [value.sum() for value in met] == [
            value.sum() for name, value in weights(data_parallel / "one").items() if name.endswith("encoder.met")
        ]
        assert met[0].any()


class TestSharded:
    def test_weights_spread_over_two_ranks_train_as_whole_ones_do(self, sharded: Path) -> None:
        assert losses(sharded / "sharded") == pytest.approx(losses(sharded / "one"), rel=1e-5)
        assert furthest(sharded / "one", sharded / "sharded") < 1e-5
        checks = [line for line in (sharded / "sharded" / "metrics.jsonl").read_text().splitlines() if "check/" in line]
        assert len(checks) == 1

    def test_each_rank_writes_its_own_pieces_without_a_pickle(self, sharded: Path) -> None:
        run = last_checkpoint(sharded / "sharded")
        assert run is not None
        for name in ("weights", "averaged", "optimizer"):
            files = sorted(path.name for path in (run / "training" / f"{name}-2").iterdir())
            assert len(files) == 2
            assert all(file.endswith(".safetensors") for file in files)
        filled = [name for name, value in weights(sharded / "one").items() if value.numel()]
        assert sorted(filled) == json.loads((sharded / "whole.json").read_text())

    def test_one_goes_on_with_what_two_had_spread(self, toy: Path, sharded: Path) -> None:
        run = sharded / "sharded-then-one"
        train(run_config(toy, run, 1))
        assert losses(run) == pytest.approx(losses(sharded / "one"), rel=1e-5)
        assert furthest(sharded / "one", run) < 1e-5

    def test_two_spread_what_one_had_whole(self, sharded: Path) -> None:
        run = sharded / "one-then-sharded"
        assert losses(run) == pytest.approx(losses(sharded / "one"), rel=1e-5)
        assert furthest(sharded / "one", run) < 1e-5

    def test_bf16_with_checkpointing_stays_near(self, sharded: Path) -> None:
        assert losses(sharded / "sharded-bf16") == pytest.approx(losses(sharded / "one"), rel=0.05)

    def test_a_flipped_byte_of_a_piece_is_found(self, toy: Path, sharded: Path) -> None:
        run = last_checkpoint(sharded / "sharded-bf16")
        assert run is not None
        piece = next((run / "training" / "weights-2").iterdir())
        content = bytearray(piece.read_bytes())
        content[-5] ^= 1
        piece.write_bytes(content)
        with pytest.raises(WamError, match="as it was written"):
            load_training(run / "training")

    def test_one_process_has_nothing_to_shard_over(self, toy: Path, tmp_path: Path) -> None:
        with pytest.raises(WamError, match="several processes"):
            train(run_config(toy, tmp_path / "run", 1, sharding="fsdp2"))

    def test_muon_wants_whole_matrices(self, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wam.training.spread.wants_shards", lambda *_: True)
        config = run_config(toy, tmp_path / "run", 1, sharding="fsdp2")
        config.optimizer.kind = "muon"
        with pytest.raises(WamError, match="whole matrices"):
            train(config)
