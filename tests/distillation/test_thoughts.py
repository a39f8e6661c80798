"""What a student is handed in training is what it will be handed on a robot; and a pair of both drives."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.distillation.conftest import ALL, Square, distill_config
from tests.distillation.test_distill import logged, made, some, weights
from tests.training.test_trainer import StopAfter, assert_same
from wam.contracts import WamError
from wam.control.pairing import ABSENT, FRESH, STALE, load_pair, load_paired, paired_in_step
from wam.distillation.config import DistillConfig
from wam.distillation.stage import DistillStage, distill
from wam.distillation.thoughts import EarlierThoughts
from wam.model.student import Student
from wam.model.thought import ThoughtConfig
from wam.training.trainer import InterruptedRunError, train


def paired(
    toy: Path, teacher: Path, output: Path, *losses: str, kind: str = "context", dropout: float = 0.2
) -> DistillConfig:
    config = distill_config(toy, teacher, output, *losses)
    config.student.thought = ThoughtConfig(kind=kind, max_age=5, dropout=dropout)  # type: ignore[arg-type]
    return config


def handed(config: DistillConfig) -> tuple[DistillStage, EarlierThoughts]:
    stage = made(config)
    assert stage.thoughts is not None
    return stage, stage.thoughts


class TestWhatIsHanded:
    @pytest.mark.parametrize("kind", ["context", "goal"])
    def test_it_is_of_a_frame_so_many_ticks_before_in_the_same_episode(
        self, kind: str, toy: Path, teacher: Path, tmp_path: Path
    ) -> None:
        stage, thoughts = handed(paired(toy, teacher, tmp_path / "run", "teacher_actions", kind=kind, dropout=0.0))
        assert stage.labels is not None
        assert stage.teacher is not None
        places = torch.arange(sum(stage.mixture.sizes))
        found = thoughts.of(places, generator=torch.Generator().manual_seed(0))
        assert found.values.shape[1] == stage.student.config.thought.dim
        ages = found.age[torch.isfinite(found.age)]
        assert set(ages.tolist()) == set(range(6))
        draws = stage.labels.draws(places)
        for place in range(0, len(places), 3):
            dataset = stage.mixture.datasets[draws[place, 0]]
            frame = dataset.episode_of(draws[place, 1])[1]
            if not torch.isfinite(found.age[place]):
                assert frame < 5, "only an episode's start has no earlier frame here"
                continue
            age = int(found.age[place])
            assert age <= frame
            then = dataset.batch([draws[place, 1] - age]).replace(instruction=(stage.labels.sentences[place],))
            wanted = stage.teacher.answer(then, seed=0).handed
            assert wanted is not None
            torch.testing.assert_close(found.values[place], wanted[0].float(), atol=2e-2, rtol=0)

    def test_some_are_dropped_and_none_where_all_are(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        for dropout, low, high in ((0.0, 0.8, 1.0), (0.5, 0.3, 0.65), (1.0, 0.0, 0.0)):
            _, thoughts = handed(paired(toy, teacher, tmp_path / str(dropout), "teacher_actions", dropout=dropout))
            places = torch.arange(60).repeat(5)
            found = thoughts.of(places, generator=torch.Generator().manual_seed(0))
            assert low <= float(torch.isfinite(found.age).float().mean()) <= high

    def test_a_thought_of_another_sentence_is_not_handed_over(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        stage, _ = handed(paired(toy, teacher, tmp_path / "run", "teacher_actions", dropout=0.0))
        assert stage.labels is not None
        stage.labels.sentences = [f"sentence {place}" for place in range(len(stage.labels.sentences))]
        thoughts = EarlierThoughts(stage.student.config.thought, stage.labels, stage.mixture)
        found = thoughts.of(torch.arange(60), generator=torch.Generator().manual_seed(0))
        assert set(found.age[torch.isfinite(found.age)].tolist()) <= {0.0}

    def test_a_student_that_acts_alone_draws_no_other_numbers(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        plain = made(distill_config(toy, teacher, tmp_path / "a", "teacher_actions"))
        none = paired(toy, teacher, tmp_path / "b", "teacher_actions", kind="none")
        batch, _ = some(plain)
        losses = [
            stage.losses(batch, generator=torch.Generator().manual_seed(0))["loss"] for stage in (plain, made(none))
        ]
        assert torch.equal(*losses)

    def test_the_labels_of_other_runs_are_read_where_they_hold_the_thoughts(
        self, toy: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = distill_config(toy, teacher, tmp_path / "a", "teacher_actions")
        then = paired(toy, teacher, tmp_path / "b", "teacher_actions")
        first.teacher.labels = then.teacher.labels = str(tmp_path / "labels")
        made(first)
        from wam.distillation.teacher import Teacher

        monkeypatch.setattr(Teacher, "_answer", lambda *_, **__: pytest.fail("the teacher was asked again"))
        made(then)
        goal = paired(toy, teacher, tmp_path / "c", "teacher_actions", kind="goal")
        goal.teacher.labels = first.teacher.labels
        with pytest.raises(pytest.fail.Exception, match="asked again"):
            made(goal)


@pytest.mark.parametrize("kind", ["context", "goal"])
def test_a_pair_is_distilled_from_every_loss_and_drives(
    kind: str, toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
) -> None:
    config = paired(toy, teacher, tmp_path / "run", *ALL, kind=kind)
    config.train.check_every = 3
    result = distill(config)
    assert set(result.losses) == {"loss", *ALL}
    assert result.checks["teacher_distance_paired"] > 0
    student, thinker = load_pair(result.checkpoint)
    assert student.config.thought.kind == kind
    policy = paired_in_step(student, thinker, execute=2, hz=5.0, delay=0.2)
    world = Square("toy", cameras=("a", "b"), image_size=16, max_steps=20)
    seen = world.reset(3)
    for _ in range(8):
        for action in policy.act([seen])[0, :2]:
            world.step(action, render=False)
        seen = world.observe()
    assert policy.tally[ABSENT] == 1  # ten ticks a second: the first thought is there at tick 2
    assert policy.tally[FRESH] == 7
    assert policy.tally[STALE] == 0
    real = load_paired(result.checkpoint, hz=5.0, steps=1)
    assert np.isfinite(real.act([seen])).all()


def test_a_paired_run_stopped_and_gone_on_with_equals_a_whole_one(
    toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
) -> None:
    whole, parts = (paired(toy, teacher, tmp_path / name, *ALL) for name in ("whole", "parts"))
    distill(whole)
    with pytest.raises(InterruptedRunError, match="stopped at step 3 of 6"):
        train(parts.train, make=lambda _: StopAfter(DistillStage(parts), 3, signal.SIGINT))  # type: ignore[arg-type]
    distill(paired(toy, teacher, tmp_path / "parts", *ALL))
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


def test_a_student_learns_to_use_what_it_is_handed(toy: Path, teacher: Path, tmp_path: Path) -> None:
    """Its pictures are blank, so that only the thought tells where the square is."""
    config = paired(toy, teacher, tmp_path / "run", "teacher_actions", dropout=0.1)
    stage = made(config)
    optimizer = torch.optim.Adam(stage.module.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    count = len(stage.mixture.datasets)
    for step in range(150):
        rows = torch.randint(min(stage.mixture.sizes), (16,), generator=generator).numpy()
        batch = stage.mixture.batch(np.stack([np.full(16, step % count), rows], axis=1))
        batch = batch.replace(images=batch.images * 0, state=None)
        optimizer.zero_grad()
        stage.losses(batch, generator=generator)["loss"].backward()
        optimizer.step()
    stage.student.eval()
    batch = stage.mixture.batch(np.stack([np.zeros(30, int), np.arange(30)], axis=1))
    assert stage.labels is not None
    assert stage.thoughts is not None
    places = stage.labels.places(batch)
    wanted = stage.labels.answers.path[places, 0, -1]
    told = tuple(stage.labels.sentences[place] for place in places.tolist())
    blank = batch.replace(images=batch.images * 0, state=None, instruction=told)
    fresh = stage.thoughts.after(places, 0, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        errors = [
            (stage.student.normalizer("action").normalize(stage.student.chunk(blank, thought=t))[:, :8] - wanted)
            .abs()
            .mean()
            for t in (None, fresh)
        ]
    assert errors[1] < 0.7 * errors[0]


def test_a_student_without_a_teacher_is_handed_nothing(toy: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(WamError, match="losses that ask a teacher"):
        distill(paired(toy, teacher, tmp_path / "run", "demonstrations"))


def test_a_student_that_is_handed_thoughts_is_not_exported(toy: Path, teacher: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from wam.control.export import export_student

    stage, _ = handed(paired(toy, teacher, tmp_path / "run", "teacher_actions"))
    assert isinstance(stage.student, Student)
    with pytest.raises(WamError, match="acts alone"):
        export_student(stage.student, tmp_path / "out")
