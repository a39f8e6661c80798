"""A student whose chunks come late while it drives is told in hindsight what it should have planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.distillation.conftest import Square, distill_config
from wam.contracts import Observation, WamError
from wam.control.continuation import Continuation
from wam.distillation import on_policy
from wam.distillation.config import OnPolicyConfig
from wam.distillation.losses import beyond
from wam.distillation.on_policy import Rounds, drive
from wam.distillation.rows import Drawn, Late
from wam.distillation.stage import DistillStage
from wam.distillation.teacher import Teacher
from wam.model.thought import ThoughtConfig

DRIVEN = OnPolicyConfig(rounds=1, episodes=10, execute=4, max_steps=20, share=(0.5, 1.0))


class Counting:
    """Its n-th chunk is n.00, n.01, ...; goes on from what is settled, as it should."""

    chunk = 10

    def __init__(self) -> None:
        self.told: list[Continuation | None] = []

    def reset(self, index: int | None = None) -> None: ...

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        return self._next(None)

    def continue_from(self, observations: Sequence[Observation], left: Sequence[Continuation | None]) -> np.ndarray:
        return self._next(left[0])

    def _next(self, left: Continuation | None) -> np.ndarray:
        chunk = len(self.told) + np.arange(10.0)[:, None] / 100 * np.ones(2)
        if left is not None:
            chunk[: left.delay] = left.actions[: left.delay]
        self.told.append(left)
        return chunk[None]


class Recording(Square):
    """Stands still, and shows the number of actions that it was given."""

    def reset(self, seed: int) -> Observation:
        self.given: list[float] = []
        super().reset(seed)
        return self.observe()

    def observe(self) -> Observation:
        return replace(super().observe(), state=np.float32([len(self.given), 0]))

    def step(self, action: np.ndarray, *, render: bool = True) -> Any:
        self.given.append(float(action[0]))
        found = super().step(0 * action, render=False)
        found.observation, found.success = self.observe() if render else None, False
        return found


@pytest.mark.parametrize(("late", "begun"), [(0, [0, 4, 8, 12, 16]), (2, [0, 4, 8, 12, 16]), (5, [0, 5, 10, 15])])
def test_plans_begin_as_often_as_executors_begin_them_and_what_is_settled_is_carried_out(
    late: int, begun: list[int]
) -> None:
    world = Recording("toy", cameras=("a", "b"), image_size=16, max_steps=99)
    policy = Counting()
    found = drive(world, policy, start=0, sentence="push", config=DRIVEN, late=late)  # type: ignore[arg-type]
    seen = [int(plan.seen.state[0]) for plan in found.plans if plan.seen.state is not None]
    over = [int(plan.over.state[0]) for plan in found.plans if plan.over.state is not None]
    assert seen == begun[: len(seen)]
    assert len(begun) - len(seen) <= 1  # the last never came
    assert [b - a for a, b in zip(seen, over, strict=True)] == [0] + [late] * (len(seen) - 1)
    assert len(world.given) == 20
    for plan, first in zip(found.plans, seen, strict=True):
        assert plan.seen.instruction == plan.over.instruction == "push"
        assert plan.before[:, 0].tolist() == pytest.approx(world.given[first : first + len(plan.before)])
    assert [told is None for told in policy.told] == [True] + [late == 0] * (len(policy.told) - 1)
    assert all(told.delay == late for told in policy.told if told is not None)


def test_hindsight_is_what_was_settled_and_then_what_was_answered() -> None:
    before = torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]], [[0.0], [0.0]]])
    answered = torch.arange(10.0, 15.0)[None, :, None].expand(3, -1, -1)
    chunk, settled = Late(before=before, ticks=torch.tensor([2, 1, 0])).hindsight(answered)
    assert chunk[..., 0].tolist() == [[1, 2, 10, 11, 12], [3, 10, 11, 12, 13], [10, 11, 12, 13, 14]]
    assert settled.sum(1).tolist() == [2, 1, 0]
    assert settled[0].tolist() == [True, True, False, False, False]


def stage_of(toy: Path, teacher: Path, folder: Path, **driven: Any) -> DistillStage:
    config = distill_config(toy, teacher, folder, "demonstrations", "continued", "on_policy")
    config.student.prefix, config.on_policy = 5, replace(DRIVEN, **driven)
    config.validate()
    return DistillStage(config)


def test_rounds_driven_late_are_kept_and_asked_where_the_chunk_came(
    toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
) -> None:
    student = stage_of(toy, teacher, tmp_path / "student", late=5).student

    def rounds() -> Rounds:
        asked = Teacher(distill_config(Path(), teacher, tmp_path).teacher)
        return Rounds(replace(DRIVEN, late=5), asked, tmp_path, sentences={"toy": ["push"]}, cameras=("a", "b"), seed=0)

    driven = rounds()
    driven.advance(student, 5, 10)
    rows = driven.rows
    assert rows is not None
    assert rows.late is not None
    half = rows.seen.size // 2
    assert rows.late.ticks[:half].max() > 0  # some episodes drew a latency
    assert not rows.late.ticks[half:].any()
    assert torch.equal(rows.answers.path[:half], rows.answers.path[half:])
    moved = rows.late.ticks[:half] > 0
    assert not torch.equal(rows.seen.images[:half][moved], rows.seen.images[half:][moved])
    assert torch.equal(rows.seen.images[:half][~moved], rows.seen.images[half:][~moved])
    made = len(simulator)
    again = rounds()
    again.advance(student, 5, 10)
    assert len(simulator) == made
    assert again.rows is not None
    assert again.rows.late is not None
    assert torch.equal(again.rows.late.before, rows.late.before)


def test_nothing_is_asked_of_what_was_settled(
    toy: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulator: list[Square]
) -> None:
    stage = stage_of(toy, teacher, tmp_path / "run", late=5)
    student, generator = stage.student, torch.Generator().manual_seed(0)
    asked, told = [], []
    monkeypatch.setattr(
        student.head, "loss", lambda z, chunk, mask, *, generator: (asked.append((chunk, mask)), z.sum())[1]
    )
    going_on = student.going_on
    monkeypatch.setattr(
        student, "going_on", lambda joined, chunk, settled: (told.append(settled), going_on(joined, chunk, settled))[1]
    )
    stage.before_step(5, 10)
    told.clear()  # the drive's own
    assert stage.rounds is not None
    assert stage.rounds.rows is not None
    drawn = stage.rounds.rows.draw(64, generator=generator)
    beyond(student, student.taken_in(drawn.batch), drawn, generator=generator)
    ((chunk, mask),), (settled,) = asked, told
    assert 0 < settled.any(1).float().mean() < 1
    assert torch.equal(mask > 0, ~settled)
    assert torch.equal(chunk, drawn.chunk[:, : student.config.chunk])


def test_the_student_is_asked_to_put_right_what_settled_actions_did(
    toy: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulator: list[Square]
) -> None:
    """The same picture with other settled actions: hindsight tells chunks apart that the picture does not."""
    student = stage_of(toy, teacher, tmp_path / "run", late=5).student
    told = torch.tensor([[[0.5, 0.5]] * 2, [[-0.5, -0.5]] * 2])
    answered = torch.stack([torch.full((10, 2), -0.8), torch.full((10, 2), 0.8)])
    chunk, settled = Late(before=told, ticks=torch.tensor([2, 2])).hindsight(answered)
    batch = stage_batch(student)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        drawn = Drawn(batch=batch, chunk=chunk, settled=settled, rows=torch.arange(2))
        loss = beyond(student, student.taken_in(batch), drawn, generator=torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2  # 0.8 where settled actions are not read


def stage_batch(student: Any) -> Any:
    world = Square("toy", cameras=("a", "b"), image_size=16, max_steps=9)
    return on_policy.to_batch([world.reset(0)] * 2, ("a", "b"))


@pytest.mark.parametrize(
    ("prefix", "late", "thought", "said"),
    [(3, 4, "none", "student.prefix"), (8, 6, "none", "half the chunk"), (5, 2, "context", "thoughts")],
)
def test_what_cannot_be_late_is_refused(
    toy: Path, teacher: Path, tmp_path: Path, prefix: int, late: int, thought: Any, said: str
) -> None:
    config = distill_config(toy, teacher, tmp_path / "run", "demonstrations", "continued", "on_policy")
    config.student.prefix, config.on_policy = prefix, replace(DRIVEN, late=late)
    config.student.thought = ThoughtConfig(kind=thought)
    with pytest.raises(WamError, match=said):
        config.validate()
