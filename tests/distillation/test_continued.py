"""A student learns to go on from settled actions, by the loss `continued`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.distillation.conftest import distill_config
from tests.training.conftest import write_toy
from wam.contracts import Observation, WamError
from wam.control.continuation import Continuation
from wam.control.wam_policy import load_policy
from wam.distillation import losses as named
from wam.distillation.losses import Seen
from wam.distillation.stage import DistillStage, distill
from wam.training.config import OptimizerConfig


def test_nothing_is_asked_of_settled_actions_and_play_is_left_out(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = distill_config(toy, None, tmp_path / "run", "demonstrations", "continued")
    config.student.prefix = 5
    stage = DistillStage(config)
    draws = np.stack([np.arange(16) % len(stage.mixture.datasets), 2 * np.arange(16)], axis=1)
    batch, generator = stage.mixture.batch(draws), torch.Generator().manual_seed(0)
    asked, told = [], []
    monkeypatch.setattr(
        stage.student.head, "loss", lambda z, chunk, mask, *, generator: (asked.append(mask), z.sum())[1]
    )
    monkeypatch.setattr(
        stage.student, "going_on", lambda joined, chunk, settled: (told.append(settled), stage.student.trunk(joined))[1]
    )
    joined = stage.student.taken_in(batch)
    named.continued(stage.student, Seen(batch=batch, joined=joined, z=joined), generator=generator)
    (mask,), (settled,) = asked, told
    assert settled.any()
    assert settled.sum(1).max() <= 5
    assert (mask[settled] == 0).all()
    assert batch.play is not None
    assert batch.action_mask is not None
    demonstrated = ~batch.play[:, None] & batch.action_mask
    assert torch.equal(mask > 0, demonstrated & ~settled)
    assert not (settled & ~demonstrated).any()


def test_a_student_goes_on_as_the_prefix_began(tmp_path: Path) -> None:
    """Of episodes in which a push lasts, so that an action tells all that follow, and no picture does."""
    data = write_toy(tmp_path / "data", episodes=80, length=12, held=100)
    config = distill_config(data, None, tmp_path / "run", "demonstrations", "continued")
    config.student.prefix = 5
    config.train.steps, config.train.batch_size, config.train.save_every, config.train.ema = 150, 32, 1000, 0.9
    config.train.optimizer = OptimizerConfig(learning_rate=5e-3, warmup=5)
    policy = load_policy(distill(config).checkpoint)
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[7:10, 7:10] = 255
    seen = Observation(
        images={"a": picture, "b": picture}, state=np.array([8, 8], np.float32), instruction="push the square"
    )
    pushes = np.array([[0.7, -0.7], [-0.7, 0.7], [0.5, 0.5], [-0.5, -0.5]], np.float32)
    left = [Continuation(actions=np.tile(push, (6, 1)), delay=3, method="prefix") for push in pushes]
    chunks, plain = policy.continue_from([seen] * 4, left), policy.act([seen] * 4)
    np.testing.assert_allclose(chunks[:, :3], np.tile(pushes[:, None], (1, 3, 1)), atol=1e-5)
    error, alone = (np.abs(found[:, 3:] - pushes[:, None]).mean() for found in (chunks, plain))
    assert error < 0.3
    assert alone > 2 * error


def test_the_loss_and_the_students_prefix_belong_together(toy: Path, tmp_path: Path) -> None:
    for losses, prefix in ((("demonstrations", "continued"), 0), (("demonstrations",), 4)):
        config = distill_config(toy, None, tmp_path / "run", *losses)
        config.student.prefix = prefix
        with pytest.raises(WamError, match="loss `continued`"):
            config.validate()
