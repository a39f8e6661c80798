"""The trainer: resumed equals uninterrupted, faults stop it with a sentence, nothing earlier is lost."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import toy_config, write_toy
from wam.contracts import Batch, WamError
from wam.model.pretrained import from_pretrained
from wam.settings import save_settings
from wam.training.config import TrainConfig
from wam.training.stages.joint import JointStage
from wam.training.state import last_checkpoint, load_training
from wam.training.trainer import InterruptedRunError, learning_rate, train


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(from_pretrained(last_checkpoint(run)).state_dict())  # type: ignore[arg-type]


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


class StopAfter:
    """A stage that sends this process a signal in its nth batch."""

    def __init__(self, stage: JointStage, batches: int, number: int) -> None:
        self._stage, self._left, self._number = stage, batches, number

    def __getattr__(self, name: str) -> object:
        return getattr(self._stage, name)

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, torch.Tensor]:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)
        return self._stage.losses(batch, generator=generator)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_stopped_by_a_signal_goes_on_to_the_same_weights(
    toy: Path, tmp_path: Path, number: int, stop: int
) -> None:
    assert threading.current_thread() is threading.main_thread()
    whole, parts = (toy_config(toy, tmp_path / name) for name in ("whole", "parts"))
    train(whole)
    torch.manual_seed(0)
    with pytest.raises(InterruptedRunError, match=f"stopped at step {stop} of 6"):
        train(parts, stage=StopAfter(JointStage(parts), stop, number))  # type: ignore[arg-type]
    train(toy_config(toy, tmp_path / "parts"))
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    logs = [
        [json.loads(x) for x in (tmp_path / n / "metrics.jsonl").read_text().splitlines()] for n in ("whole", "parts")
    ]
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]


def test_a_run_killed_outright_goes_on_from_its_last_checkpoint_to_the_same_weights(toy: Path, tmp_path: Path) -> None:
    train(toy_config(toy, tmp_path / "whole"))
    parts = toy_config(toy, tmp_path / "parts")
    save_settings(parts, tmp_path / "parts.yaml")
    code = (
        "import torch, tests.training.test_trainer as t; from wam.settings import load_settings; from pathlib import Path;"
        f"c = load_settings(t.TrainConfig, Path({str(tmp_path / 'parts.yaml')!r})); torch.manual_seed(0);"
        "t.train(c, stage=t.StopAfter(t.JointStage(c), 5, t.signal.SIGKILL))"
    )
    died = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    left = last_checkpoint(tmp_path / "parts")
    assert left is not None
    assert load_training(left / "training")[1]["step"] == 3
    train(parts)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_accumulated_batches_resume_too(toy: Path, tmp_path: Path) -> None:
    train(toy_config(toy, tmp_path / "whole", accumulate=2, steps=4))
    train(toy_config(toy, tmp_path / "parts", accumulate=2, steps=2))
    # the schedule depends on the number of steps, so only the first half is comparable: same data, same draws
    first = [json.loads(x)["loss"] for x in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()][:2]
    assert first == [json.loads(x)["loss"] for x in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]


def test_a_finished_run_is_left_alone(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, tmp_path / "run", steps=2)
    train(config)
    before = weights(tmp_path / "run")
    assert train(config).steps == 2
    assert_same(before, weights(tmp_path / "run"))


class Broken:
    """A stage whose loss goes wrong after a few batches."""

    def __init__(self, stage: JointStage, values: list[float]) -> None:
        self._stage, self._values = stage, iter(values)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stage, name)

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, torch.Tensor]:
        found = self._stage.losses(batch, generator=generator)
        return {**found, "loss": found["loss"] * 0 + next(self._values)}


@pytest.mark.parametrize(("values", "word"), [([1.0] * 4 + [float("nan")], "nan"), ([1.0] * 60 + [1e4], "median")])
def test_nan_and_divergence_stop_the_run_and_name_the_last_checkpoint(
    toy: Path, tmp_path: Path, values: list[float], word: str
) -> None:
    config = toy_config(toy, tmp_path / "run", steps=100)
    with pytest.raises(WamError, match=word) as error:
        train(config, stage=Broken(JointStage(config), values))  # type: ignore[arg-type]
    checkpoint = last_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    assert str(checkpoint) in str(error.value)
    assert load_training(checkpoint / "training")[1]["step"] == (len(values) - 1) // 3 * 3


def test_nan_actions_are_named_before_they_spoil_the_weights(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, tmp_path / "run")
    stage = JointStage(config)
    stage.mixture.datasets[0]._action[:] = float("nan")  # type: ignore[index]
    with pytest.raises(WamError, match=r"finite actions.*doctor"):
        train(config, stage=stage)


def test_a_flipped_byte_is_found_on_resume_and_on_load(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, tmp_path / "run", steps=3)
    train(config)
    folder = last_checkpoint(tmp_path / "run")
    assert folder is not None
    for name in ("training/optimizer.safetensors", "training/weights.safetensors", "model.safetensors", "config.yaml"):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(WamError, match="expected"):
            train(toy_config(toy, tmp_path / "run", steps=6)) if "training" in name else from_pretrained(folder)
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    assert from_pretrained(folder).config.width == 32


def test_a_checkpoint_from_another_model_is_refused(toy: Path, tmp_path: Path) -> None:
    train(toy_config(toy, tmp_path / "run", steps=2))
    other = toy_config(toy, tmp_path / "run", steps=4)
    other.model.width = 48
    with pytest.raises(WamError, match="another model"):
        train(other)


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(toy, tmp_path / "run", steps=3)
    train(config)
    good = last_checkpoint(tmp_path / "run")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wam.files.os.fsync", full)
    with pytest.raises(WamError, match="room on the disk"):
        train(toy_config(toy, tmp_path / "run", steps=9))
    monkeypatch.undo()
    assert last_checkpoint(tmp_path / "run") == good
    assert train(toy_config(toy, tmp_path / "run", steps=9)).steps == 9


def test_minutes_become_a_number_of_steps_that_is_kept(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, tmp_path / "run", steps=0, minutes=0.05, timed_steps=3)
    result = train(config)
    folder = last_checkpoint(tmp_path / "run")
    assert folder is not None
    assert load_training(folder / "training")[1]["total"] == result.steps > 3


def test_the_learning_rate_warms_up_and_falls_to_its_end() -> None:
    config = TrainConfig()
    rates = [learning_rate(step, 1000, config) for step in range(1000)]
    assert rates[0] < rates[49] == pytest.approx(config.optimizer.learning_rate)
    assert all(a >= b for a, b in itertools.pairwise(rates[50:]))
    assert rates[-1] == pytest.approx(config.optimizer.final_rate * config.optimizer.learning_rate, rel=0.05)


def test_action_free_video_trains_the_future_alone(tmp_path: Path) -> None:
    root = write_toy(tmp_path / "data", episodes=3, action_free=True)
    config = toy_config(root, tmp_path / "run", steps=2)
    for row in config.model.conditionals:
        row.clocks = {s: rule for s, rule in row.clocks.items() if s == "future"}
    result = train(config)
    assert "future" in result.losses
    assert "action" not in result.losses


def test_the_world_model_learns_to_answer_to_actions(tmp_path: Path) -> None:
    """The background changes as the action says: after some seconds, shuffled actions are clearly worse."""
    root = write_toy(tmp_path / "data", episodes=12, tinted=True)
    config = toy_config(root, tmp_path / "run", steps=150, save_every=1000, batch_size=16, check_every=150)
    config.optimizer.learning_rate = 3e-3
    config.model.conditionals = [row for row in config.model.conditionals if row.name == "forward_dynamics"]
    assert train(config).checks["action_sensitivity"] > 1.05


def test_an_action_blind_model_is_warned_about(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, tmp_path / "run", steps=2, check_every=2)
    config.model.visibility = "action-blind"
    with pytest.warns(UserWarning, match="does not listen"):
        checks = train(config).checks
    assert checks["action_sensitivity"] == 1.0


def test_provenance_says_what_made_the_weights(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, tmp_path / "run", steps=2)
    train(config)
    model = from_pretrained(last_checkpoint(tmp_path / "run"))  # type: ignore[arg-type]
    assert model.provenance["random"] is False
    assert model.provenance["data"] == [str(toy)]
    assert model.provenance["seed"] == 0
    assert set(model.provenance["sha256"]) == {"config.yaml", "model.safetensors", "statistics.json"}
    assert model.cameras == ("a", "b")
    assert model.action_space is not None
    assert model.action_space.names == ("x", "y")


def test_the_run_keeps_a_config_that_starts_it_again(toy: Path, tmp_path: Path) -> None:
    from wam.settings import load_settings

    config = toy_config(toy, tmp_path / "run", steps=2)
    train(config)
    again = load_settings(TrainConfig, tmp_path / "run" / "config.yaml")
    save_settings(again, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "run" / "config.yaml").read_text()


def test_the_cloning_control_trains_saves_and_acts(toy: Path, tmp_path: Path) -> None:
    from wam.contracts import Observation
    from wam.control.wam_policy import load_policy

    config = toy_config(toy, tmp_path / "run", steps=3, stage="cloning")
    assert train(config).losses["loss"] > 0
    policy = load_policy(last_checkpoint(tmp_path / "run"))  # type: ignore[arg-type]
    picture = np.zeros((16, 16, 3), np.uint8)
    seen = Observation(
        images={"a": picture, "b": picture}, state=np.zeros(2, np.float32), instruction="push the square"
    )
    assert policy.act([seen, seen]).shape == (2, 8, 2)


def test_the_autoencoder_stage_learns_to_reconstruct(toy: Path, tmp_path: Path) -> None:
    from wam.tokenizers.autoencoder import Autoencoder

    config = toy_config(toy, tmp_path / "run", steps=4, stage="autoencoder", check_every=4)
    assert train(config).checks["reconstruction_psnr"] > 0
    assert Autoencoder.from_pretrained(last_checkpoint(tmp_path / "run")).provenance["random"] is False  # type: ignore[arg-type]


def test_runs_of_different_precision_share_a_process(toy: Path, tmp_path: Path) -> None:
    for precision in ("bf16", "fp32"):
        assert train(toy_config(toy, tmp_path / precision, steps=1, precision=precision)).steps == 1


class Counting:
    """A stage that notes when it is called between steps."""

    def __init__(self, stage: JointStage) -> None:
        self._stage, self.told = stage, []

    def __getattr__(self, name: str) -> object:
        return getattr(self._stage, name)

    def before_step(self, step: int, total: int) -> None:
        self.told.append((step, total))


def test_a_stage_that_acts_between_steps_is_called_before_each(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, tmp_path / "run", steps=3)
    stage = Counting(JointStage(config))
    train(config, stage=stage)  # type: ignore[arg-type]
    assert stage.told == [(0, 3), (1, 3), (2, 3)]


def test_a_callers_own_stage_is_made_after_the_seed_is_set(toy: Path, tmp_path: Path) -> None:
    train(toy_config(toy, tmp_path / "named", steps=2))
    torch.manual_seed(99)
    train(toy_config(toy, tmp_path / "handed", steps=2), make=JointStage)
    assert_same(weights(tmp_path / "named"), weights(tmp_path / "handed"))
