"""Distillation: every loss can be left out, what the teacher said is asked once, and a resumed run equals a whole one."""

from __future__ import annotations

import copy
import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.distillation.conftest import ALL, Square, distill_config
from tests.training.test_ranks import launch
from tests.training.test_trainer import StopAfter, assert_same
from wam.contracts import Observation, WamError
from wam.control.wam_policy import load_policy
from wam.data.mixture import Mixture
from wam.distillation import stage as stages
from wam.distillation.config import DistillConfig, OnPolicyConfig
from wam.distillation.labels import TeacherLabels
from wam.distillation.on_policy import Rounds, weights_of
from wam.distillation.stage import CONFIG, DistillStage, distill
from wam.distillation.teacher import Teacher
from wam.files import sha256
from wam.model.student import Student
from wam.settings import load_settings
from wam.simulation.record import FIRST_SEED
from wam.training.state import last_checkpoint, newest_checkpoint
from wam.training.trainer import InterruptedRunError, train


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(Student.from_pretrained(newest_checkpoint(run)).state_dict())


def logged(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "data_wait_share"} for row in rows]


def made(config: DistillConfig) -> DistillStage:
    config.validate()
    torch.manual_seed(0)
    return DistillStage(copy.deepcopy(config))


def some(stage: DistillStage, count: int = 8) -> tuple[stages.Batch, torch.Generator]:
    draws = np.stack([np.arange(count) % len(stage.mixture.datasets), 2 * np.arange(count)], axis=1)
    return stage.mixture.batch(draws), torch.Generator().manual_seed(0)


def test_a_student_of_every_loss_becomes_a_policy_that_names_its_teacher(
    toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
) -> None:
    config = distill_config(toy, teacher, tmp_path / "run", *ALL)
    result = distill(config)
    assert set(result.losses) == {"loss", *ALL}
    policy = load_policy(result.checkpoint)
    picture = np.zeros((16, 16, 3), np.uint8)
    seen = Observation(
        images={"a": picture, "b": picture}, state=np.zeros(2, np.float32), instruction="push the square"
    )
    assert policy.act([seen, seen]).shape == (2, 8, 2)
    said = policy.model.provenance
    assert said["teacher"]["sha256"] == sha256(newest_checkpoint(teacher) / "model.safetensors")
    assert said["losses"] == dict.fromkeys(ALL, 1.0)
    assert len(said["on_policy_success"]) == 2
    assert said["random"] is False
    assert load_settings(DistillConfig, tmp_path / "run" / CONFIG).losses == config.losses


@pytest.mark.parametrize("left_out", [name for name in ALL if name != "flow"])
def test_each_loss_can_be_left_out(
    left_out: str, toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
) -> None:
    config = distill_config(toy, teacher, tmp_path / "run", *(name for name in ALL if name != "flow"))
    config.losses[left_out] = 0.0
    config.train.steps = 4
    result = distill(config)
    assert set(result.losses) == {"loss", *ALL} - {"flow", left_out}
    assert bool(simulator) == (left_out != "on_policy")
    stage = made(config)
    assert (stage.imagined is None) == (left_out == "imagined")
    assert (stage.distilled.to_features is None) == (left_out == "features")


@pytest.mark.parametrize("name", ["demonstrations", "teacher_actions", "features", "flow", "imagined"])
def test_the_total_is_the_weighted_sum(name: str, toy: Path, teacher: Path, tmp_path: Path) -> None:
    config = distill_config(toy, teacher, tmp_path / "run", *ALL[:-1])
    stage = made(config)
    batch, generator = some(stage)
    plain = stage.losses(batch, generator=generator)
    assert plain["loss"].item() == pytest.approx(sum(plain[loss].item() for loss in ALL[:-1]), rel=1e-5)
    stage.active[name] = 3.0
    again = stage.losses(batch, generator=torch.Generator().manual_seed(0))
    assert (again["loss"] - plain["loss"]).item() == pytest.approx(2 * plain[name].item(), rel=1e-3)


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_run_stopped_and_gone_on_with_equals_a_whole_one(
    stop: int, toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
) -> None:
    whole, parts = (distill_config(toy, teacher, tmp_path / name, *ALL) for name in ("whole", "parts"))
    distill(whole)
    with pytest.raises(InterruptedRunError, match=f"stopped at step {stop} of 6"):
        train(parts.train, make=lambda _: StopAfter(DistillStage(parts), stop, signal.SIGINT))  # type: ignore[arg-type]
    distill(distill_config(toy, teacher, tmp_path / "parts", *ALL))
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


def test_the_losses_fall(toy: Path, teacher: Path, tmp_path: Path) -> None:
    config = distill_config(toy, teacher, tmp_path / "run", *ALL[:-1])
    config.train.steps, config.train.batch_size, config.train.save_every = 80, 16, 1000
    config.train.optimizer.learning_rate, config.train.optimizer.warmup = 3e-3, 5
    distill(config)
    rows = logged(tmp_path / "run")
    for name in ("teacher_actions", "imagined", "features", "flow"):
        early, late = (np.mean([row[name] for row in part]) for part in (rows[:8], rows[-8:]))
        assert late < 0.75 * early, name


class TestTheControl:
    def test_it_learns_from_demonstrations_alone_and_says_so(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        config = distill_config(toy, teacher, tmp_path / "run", "demonstrations")
        result = distill(config)
        assert set(result.losses) == {"loss", "demonstrations"}
        assert Student.from_pretrained(result.checkpoint).provenance["teacher"] is None
        assert not (tmp_path / "run" / "labels").exists()

    def test_it_is_the_very_student_that_is_distilled(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        control = made(distill_config(toy, teacher, tmp_path / "a", "demonstrations")).student
        taught = made(distill_config(toy, teacher, tmp_path / "b", "demonstrations", "teacher_actions")).student
        assert control.config == taught.config
        assert_same(dict(control.state_dict()), dict(taught.state_dict()))

    def test_it_needs_no_teacher_at_all(self, toy: Path, tmp_path: Path) -> None:
        config = distill_config(toy, None, tmp_path / "run", "demonstrations")
        config.train.check_every = 3
        assert distill(config).checks["demonstration_error"] > 0

    def test_few_labels_are_few_episodes(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        config = distill_config(toy, teacher, tmp_path / "run", "demonstrations")
        config.train.data.parts[0].take = 1
        few = made(config).mixture
        assert [len(dataset.episodes) for dataset in few.datasets] == [1, 1]

    def test_random_play_teaches_it_nothing(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        stage = made(distill_config(toy, teacher, tmp_path / "run", "demonstrations"))
        batch, _ = some(stage)
        assert batch.play is not None
        assert batch.play.any()
        assert batch.action is not None
        spoiled = batch.action + 100 * batch.play.float()[:, None, None]
        losses = [
            stage.losses(b, generator=torch.Generator().manual_seed(0))["loss"]
            for b in (batch, batch.replace(action=spoiled))
        ]
        assert torch.equal(*losses)


class TestLabels:
    def test_they_are_asked_once_and_read_by_every_later_run(
        self, toy: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def config(name: str) -> DistillConfig:
            found = distill_config(toy, teacher, tmp_path / name, "teacher_actions", "imagined", "features")
            found.teacher.labels = str(tmp_path / "labels")
            return found

        first = made(config("a"))
        monkeypatch.setattr(Teacher, "_answer", lambda *_, **__: pytest.fail("the teacher was asked again"))
        other = config("b")
        other.train.seed, other.losses = 7, {"teacher_actions": 1.0, "imagined": 1.0}
        second = made(other)
        for one, two in ((first.labels, second.labels), (first.imagined, second.imagined)):
            assert one is not None
            assert two is not None
            assert_same(one.answers.tensors(), two.answers.tensors())
        changed = config("c")
        changed.teacher.seed = 1
        with pytest.raises(pytest.fail.Exception, match="asked again"):
            made(changed)

    def test_a_damaged_file_is_asked_for_again(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        config = distill_config(toy, teacher, tmp_path / "run", "teacher_actions")
        first = made(config).labels
        for path in (tmp_path / "run" / "labels").iterdir():
            path.write_bytes(path.read_bytes()[:-100])
        again = made(config).labels
        assert first is not None
        assert again is not None
        assert_same(first.answers.tensors(), again.answers.tensors())

    def test_they_are_the_teachers_policy_on_each_window(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        stage = made(distill_config(toy, teacher, tmp_path / "run", "teacher_actions"))
        assert stage.labels is not None
        assert stage.teacher is not None
        batch, _ = some(stage)
        places = stage.labels.places(batch)
        spoken = tuple(stage.labels.sentences[place] for place in places.tolist())
        model = stage.teacher.model
        asked = batch.replace(instruction=spoken).without("action", "action_mask")
        chunk = model.normalizer("action").normalize(model.policy(asked, steps=1, seed=3).action)  # type: ignore[arg-type]
        found = stage.labels.answers.take(places).path[:, :, -1]
        assert found.shape == (8, 2, 8, 2)
        # a chunk of one step hardly depends on its noise, and very much on its window
        own = (found.mean(1) - chunk).abs().mean()
        assert own < 0.5 * (found.mean(1) - chunk.roll(1, 0)).abs().mean()

    def test_play_is_told_a_task_of_its_environment_or_left_out(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        for retell in (True, False):
            config = distill_config(toy, teacher, tmp_path / str(retell), "teacher_actions")
            config.teacher.retell = retell
            labels, mixture = _labels(config)
            playful = torch.cat([torch.full((len(d),), d.episodes[0].play) for d in mixture.datasets])
            assert torch.equal(labels.useful, ~playful | retell)
            assert set(labels.sentences) == {"push the square"}

    def test_places_and_draws_are_each_others_inverse(self, toy: Path, teacher: Path, tmp_path: Path) -> None:
        labels, mixture = _labels(distill_config(toy, teacher, tmp_path / "run", "teacher_actions"))
        places = torch.arange(sum(mixture.sizes))
        draws = labels.draws(places)
        assert torch.equal(labels.places(mixture.batch(draws)), places)


def test_a_teacher_that_only_attends_to_its_context_has_no_features_to_match(
    toy: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Teacher._answer
    silent = lambda self, batch, *, seed: replace(answer(self, batch, seed=seed), features=None)  # noqa: E731
    monkeypatch.setattr(Teacher, "_answer", silent)
    with pytest.raises(WamError, match="only attends"):
        made(distill_config(toy, teacher, tmp_path / "run", "features"))


def _labels(config: DistillConfig) -> tuple[TeacherLabels, Mixture]:
    stage = made(config)
    assert stage.labels is not None
    return stage.labels, stage.mixture


def test_imagined_frames_have_no_state_and_are_no_frames_of_the_dataset(
    toy: Path, teacher: Path, tmp_path: Path
) -> None:
    stage = made(distill_config(toy, teacher, tmp_path / "run", "imagined", "demonstrations"))
    rows = stage.imagined
    assert rows is not None
    assert rows.seen.size == rows.answers.size == 12
    assert rows.seen.state is None
    assert rows.seen.images.shape == (12, 2, 1, 16, 16, 3)
    drawn = rows.draw(5, generator=torch.Generator().manual_seed(0))
    assert drawn.batch.size == 5
    assert drawn.chunk.shape == (5, 8, 2)
    assert not drawn.settled.any()


class TestOnPolicy:
    def rounds(self, folder: Path, teacher: Path, **changes: object) -> Rounds:
        config = OnPolicyConfig(rounds=2, episodes=2, execute=4, max_steps=8, share=(0.5, 1.0))
        config = replace(config, **changes)  # type: ignore[arg-type]
        sentences = {"toy": ["push the square", "push it"]}
        asked = Teacher(distill_config(Path(), teacher, folder).teacher)
        return Rounds(config, asked, folder, sentences=sentences, cameras=("a", "b"), seed=0)

    def student(self, toy: Path, teacher: Path, tmp_path: Path) -> Student:
        return made(distill_config(toy, teacher, tmp_path / "student", "demonstrations")).student

    def test_rounds_come_at_even_distances_and_their_share_grows(
        self, toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
    ) -> None:
        rounds, student = self.rounds(tmp_path, teacher), self.student(toy, teacher, tmp_path)
        came, counts = [], []
        for step in range(30):
            if rounds.advance(student, step, 30):
                came.append(step)
            counts.append(rounds.count(step, 30, 10))
        assert came == [10, 20]
        assert counts[:10] == [0] * 10
        assert (counts[10], counts[-1]) == (5, 10)
        assert counts == sorted(counts)

    def test_nothing_is_driven_before_the_length_of_the_run_is_known(
        self, toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
    ) -> None:
        rounds = self.rounds(tmp_path, teacher)
        assert not rounds.advance(self.student(toy, teacher, tmp_path), 5, 0)
        assert simulator == []

    def test_the_student_drives_and_the_teacher_says_what_it_would_have_done(
        self, toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
    ) -> None:
        rounds, student = self.rounds(tmp_path, teacher), self.student(toy, teacher, tmp_path)
        rounds.advance(student, 1, 2)
        rows = rounds.rows
        assert rows is not None
        assert 2 <= rows.seen.size <= 4  # two episodes of at most eight steps, four of each chunk
        assert set(rows.seen.instruction) <= {"push the square", "push it"}
        answers = rounds.teacher.answer(rows.seen, seed=rounds.teacher.config.seed + 7919)
        assert torch.equal(rows.answers.path, answers.path)
        assert min(seed for environment in simulator for seed in environment.starts) >= FIRST_SEED

    def test_a_round_of_these_weights_is_read_and_one_of_others_driven_anew(
        self, toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
    ) -> None:
        student = self.student(toy, teacher, tmp_path)
        self.rounds(tmp_path, teacher).advance(student, 1, 2)
        driven = len(simulator)
        self.rounds(tmp_path, teacher).advance(student, 1, 2)
        assert len(simulator) == driven
        before = weights_of(student)
        with torch.no_grad():
            student.join.bias.add_(0.5)
        assert weights_of(student) != before
        self.rounds(tmp_path, teacher).advance(student, 1, 2)
        assert len(simulator) > driven

    def test_a_resumed_run_that_lost_a_round_says_so(
        self, toy: Path, teacher: Path, tmp_path: Path, simulator: list[Square]
    ) -> None:
        student = self.student(toy, teacher, tmp_path)
        with pytest.raises(WamError, match=r"round-0.*--fresh"):
            self.rounds(tmp_path, teacher).advance(student, 25, 30)

    def test_an_environment_without_demonstrations_is_refused(self, teacher: Path, tmp_path: Path) -> None:
        with pytest.raises(WamError, match="moon"):
            self.rounds(tmp_path, teacher, environments=["toy", "moon"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"losses": {"dreams": 1.0}}, "demonstrations, teacher_actions"),
        ({"losses": {"demonstrations": 0.0}}, "one of them above"),
        ({"losses": {"on_policy": 1.0}}, "begins with a student"),
        ({"losses": {"flow": 1.0, "demonstrations": 1.0}}, "student.head=flow"),
        ({"on_policy": OnPolicyConfig(execute=11)}, "chunk's 10"),
        ({"on_policy": OnPolicyConfig(share=(0.1, 9.0))}, "shares from 0 to 4"),
    ],
)
def test_what_cannot_be_distilled_says_so(
    change: dict[str, object], words: str, toy: Path, teacher: Path, tmp_path: Path
) -> None:
    config = distill_config(toy, teacher, tmp_path / "run", "demonstrations", **change)
    with pytest.raises(WamError, match=words):
        distill(config)


def test_a_loss_that_asks_a_teacher_needs_one(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(WamError, match=r"teacher\.run"):
        distill(distill_config(toy, None, tmp_path / "run", "teacher_actions"))


def test_a_student_looks_through_the_cameras_of_its_teacher(toy: Path, teacher: Path, tmp_path: Path) -> None:
    config = distill_config(toy, teacher, tmp_path / "run", "demonstrations")
    config.train.data.cameras = ["b", "a"]
    with pytest.raises(WamError, match="as the teacher's"):
        distill(config)


def test_a_map_needs_chunks_as_long_as_the_teachers(toy: Path, teacher: Path, tmp_path: Path) -> None:
    config = distill_config(toy, teacher, tmp_path / "run", "flow", "demonstrations")
    config.student.chunk = 12
    with pytest.raises(WamError, match=r"student\.chunk=8"):
        distill(config)


def test_a_student_is_no_teacher(toy: Path, teacher: Path, tmp_path: Path) -> None:
    run = distill(distill_config(toy, teacher, tmp_path / "run", "demonstrations")).checkpoint
    with pytest.raises(WamError, match="world-action model"):
        Teacher(distill_config(toy, run, tmp_path / "next").teacher)
    assert last_checkpoint(tmp_path / "run") == run


def test_of_two_ranks_the_first_asks_and_drives_and_the_other_reads(toy: Path, teacher: Path, tmp_path: Path) -> None:
    launch("tests.distillation.two_ranks", toy, teacher, tmp_path)
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert (first["asked"], first["environments"]) == (2, 2)  # demonstrations and play
    assert (second["asked"], second["environments"]) == (0, 0)
    assert first["losses"] == second["losses"]
    assert set(first["losses"]) == {"loss", *ALL}
    assert Student.from_pretrained(newest_checkpoint(tmp_path / "run")).provenance["random"] is False
