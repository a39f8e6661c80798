"""The distillation stage: one student, a teacher that is asked once for what it knows of the data, and weighted losses."""

from __future__ import annotations

import copy
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.data.splits import split_episodes
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset
from wam.distillation import losses as named
from wam.distillation.config import DistillConfig
from wam.distillation.imagined import imagined_from, imagined_rows
from wam.distillation.labels import TeacherLabels, sentences_by_environment
from wam.distillation.losses import Distilled, Seen
from wam.distillation.on_policy import Rounds
from wam.distillation.rows import Rows
from wam.distillation.teacher import Teacher
from wam.distillation.thoughts import EarlierThoughts
from wam.model.config import ModelConfig, OccupancyConfig
from wam.model.student import Student
from wam.model.thought import Thought
from wam.settings import save_settings
from wam.training.config import TrainConfig
from wam.training.data import fit_dimensions, fit_normalizers, make_mixture, window_spec
from wam.training.objective import scrambled
from wam.training.trainer import TrainResult, train

CONFIG = "distill.yaml"
"""Beside a run's config.yaml: the whole of what was asked for."""
CHECKED_EPISODES, CHECKED_WINDOWS = 8, 64


def distill(config: DistillConfig, *, resume: bool = True) -> TrainResult:
    """Train a student, from its newest checkpoint if there is one and `resume` is set."""
    config.validate()
    config = copy.deepcopy(config)  # the stage fills in what data and teacher say
    config.train.stage = "distill"
    asked = copy.deepcopy(config)

    def make(_: TrainConfig) -> DistillStage:
        stage = DistillStage(config)
        if _processes().is_main_process:
            save_settings(asked, Path(asked.train.output) / CONFIG)
        return stage

    return train(config.train, resume=resume, make=make)


class DistillStage:
    """Trains a `Student`. imagined: frames that the teacher imagined; rounds: frames that the student came to. thoughts: what
    the student is handed."""

    module: nn.Module

    def __init__(self, config: DistillConfig) -> None:
        self.config, self.active = config, config.active
        own, output = config.train, Path(config.train.output)
        self.teacher = self._hire()
        own.model = seen_by(
            own.model if self.teacher is None else self.teacher.model.config, chunk=config.student.chunk
        )
        self.mixture, _ = make_mixture(own)
        stores = [dataset.store for dataset in self.mixture.datasets]
        if self.teacher is None:
            fit_dimensions(own.model, stores)
        self.student = self._enrol(stores)
        self.labels: TeacherLabels | None = None
        self.imagined: Rows | None = None
        self.rounds: Rounds | None = None
        self.thoughts: EarlierThoughts | None = None
        self._step = self._total = 0
        if config.taught:
            assert self.teacher is not None
            kept = Path(config.teacher.labels or output / "labels")
            with _one_after_the_other():
                self.labels = TeacherLabels.ask(self.teacher, self.mixture, kept)
                if "imagined" in self.active:
                    self.imagined = imagined_rows(self.teacher, self.mixture, self.labels, config.imagined, kept)
            if config.paired:
                self.thoughts = EarlierThoughts(self.student.config.thought, self.labels, self.mixture)
        if "on_policy" in self.active:
            assert self.teacher is not None
            told = {name: said for store in stores for name, said in sentences_by_environment(store).items()}
            self.rounds = Rounds(
                config.on_policy,
                self.teacher,
                output / "rounds",
                sentences=told,
                cameras=own.data.cameras,
                seed=own.seed,
            )
        self.distilled = Distilled(self.student, features=self._features())
        self.module = self.distilled

    def _features(self) -> int:
        """Of the teacher's context, how many the loss `features` compares."""
        if "features" not in self.active:
            return 0
        known = None if self.labels is None else self.labels.answers.features
        if known is None:
            raise expected(
                "a teacher whose context modulates its action, for the loss `features`",
                got="one that only attends to it",
                do="give `features` weight 0",
            )
        return known.shape[1]

    def _hire(self) -> Teacher | None:
        """The teacher, whose model says what is seen. Where nothing is asked of it, that is all it does."""
        config = self.config
        if not config.teacher.run:
            return None
        teacher = Teacher(config.teacher, ways="flow" in self.active, thought=config.student.thought)
        if "flow" in self.active and config.student.chunk != teacher.chunk:
            raise expected(
                f"student.chunk={teacher.chunk}, as the teacher's, for the loss `flow`",
                got=config.student.chunk,
                do="set it, or give `flow` weight 0",
            )
        seen, used = list(teacher.model.cameras), list(config.train.data.cameras)
        if seen and seen != used:
            raise expected(f"train.data.cameras={seen}, as the teacher's", got=used, do="name the same, in its order")
        return teacher

    def _enrol(self, stores: list[EpisodeStore]) -> Student:
        """The student, with what the teacher's model, or one of the same run, sees of the state, and its normalisers."""
        c, model = self.config.student, self.config.train.model
        c.views, c.history, c.image_size = len(self.config.train.data.cameras), model.history, model.image_size
        c.action_dim, c.state_dim = model.action_dim, model.state_dim
        c.columns = model.streams["state"].columns if "state" in model.streams else []
        c.maps = "flow" in self.active
        if self.config.paired:
            assert self.teacher is not None
            c.thought.dim = self.teacher.thought_dim(self.mixture)
        space = next((store.info.action_space for store in stores if store.info.action_space), None)
        student = Student(c, action_space=space)
        student.cameras = tuple(self.config.train.data.cameras)
        if self.teacher is None:
            fit_normalizers(student, self.mixture.datasets)
        else:
            for name in ("action", "state"):
                student.normalizer(name).load_state_dict(self.teacher.model.normalizer(name).state_dict())
        return student

    # losses ------------------------------------------------------------------------------------------------------

    def before_step(self, step: int, total: int) -> None:
        """Drives the rounds that are due."""
        self._step, self._total = step, total
        if self.rounds is not None and total:
            with _one_after_the_other():
                if self.rounds.advance(self.student, step, total):
                    print(f"the student succeeds in {self.rounds.success[-1]:.2f} of its own episodes", flush=True)

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        seen = self._look(batch, generator)
        student, found = self.student, {}
        for name in self.active:
            if name == "demonstrations":
                found[name] = named.demonstrations(student, seen, generator=generator)
            elif name == "teacher_actions":
                found[name] = named.teacher_actions(student, seen, generator=generator)
            elif name == "continued":
                found[name] = named.continued(student, seen, noise=self.config.prefix_noise, generator=generator)
            elif name == "features":
                found[name] = named.features(self.distilled, seen)
            elif name == "flow":
                assert self.teacher is not None
                found[name] = named.flow(student, seen, self.teacher.clocks, generator=generator)
            elif name == "imagined":
                assert self.imagined is not None
                count = max(1, round(self.config.imagined.share * batch.size))
                found[name] = self._beyond(self.imagined, count, batch, generator)
            elif name == "on_policy":
                assert self.rounds is not None
                count = self.rounds.count(self._step, self._total, batch.size)
                if self.rounds.rows is not None and count:
                    found[name] = self._beyond(self.rounds.rows, count, batch, generator)
        total = sum((self.active[name] * loss for name, loss in found.items()), seen.z.sum() * 0)
        return {"loss": total, **found}

    def _look(self, batch: Batch, generator: torch.Generator) -> Seen:
        """One pass of the student over the dataset's rows, told what the teacher was told, with some words missing."""
        if self.labels is None:
            joined = self._taken_in(batch, None, generator)
            return Seen(batch=batch, joined=joined, z=self.student.trunk(joined))
        places = self.labels.places(batch)
        batch = batch.replace(instruction=tuple(self.labels.sentences[place] for place in places.tolist()))
        answers = self.labels.answers.take(places)
        draw = torch.randint(answers.path.shape[1], (batch.size,), generator=generator)
        useful = self.labels.useful[places].float()
        thought = None if self.thoughts is None else self.thoughts.of(places, generator=generator)
        joined = self._taken_in(batch, thought, generator)
        z = self.student.trunk(joined)
        return Seen(batch=batch, joined=joined, z=z, useful=useful, answers=answers, draw=draw)

    def _beyond(self, rows: Rows, count: int, like: Batch, generator: torch.Generator) -> Tensor:
        drawn = rows.draw(count, generator=generator)
        thought = self._thought_beyond(rows, drawn.rows, generator)
        joined = self._taken_in(drawn.batch.to(like.images.device), thought, generator)
        return named.beyond(self.student, joined, drawn, generator=generator)

    def _thought_beyond(self, rows: Rows, chosen: Tensor, generator: torch.Generator) -> Thought | None:
        """Of an imagined frame, that of the frame which it comes after."""
        if self.thoughts is None:
            return None
        if rows is not self.imagined:
            return self.thoughts.of_rows(rows, chosen, generator=generator)
        assert self.labels is not None
        assert self.teacher is not None
        places = imagined_from(self.labels, self.config.imagined)[chosen]
        return self.thoughts.after(places, self.teacher.model.config.future[-1], generator=generator)

    def _taken_in(self, batch: Batch, thought: Thought | None, generator: torch.Generator) -> Tensor:
        noise = self.config.word_noise if self.config.student.text.kind == "small" else 0.0
        told = tuple(scrambled(sentence, noise, generator) for sentence in batch.instruction)
        hide = torch.rand(batch.size, generator=generator) < self.config.student.state_dropout
        thought = None if thought is None else thought.to(batch.images.device)
        return self.student.taken_in(batch.replace(instruction=told), hide=hide, thought=thought)

    # figures and files -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """On held-out demonstrations, in units in which an action's usual range is -1 to 1: the student's mean error, and how
        far it is from its teacher, over the steps that both plan; `paired`: with the teacher's thought of the very frame."""
        batch = self._held_out
        if batch is None or batch.action is None:
            return {}
        batch = batch.to(next(self.module.parameters()).device)
        assert batch.action is not None
        normalizer = self.student.normalizer("action")
        planned = normalizer.normalize(self.student.chunk(batch))
        error = (planned - normalizer.normalize(batch.action)).abs().mean(-1)
        mask = torch.ones_like(error) if batch.action_mask is None else batch.action_mask.float()
        found = {"demonstration_error": float((error * mask).sum() / mask.sum().clamp_min(1))}
        if self.teacher is not None and self.config.taught:
            answers = self.teacher.answer(batch.to("cpu"), seed=0)
            theirs = answers.path[:, 0, -1].to(planned.device)
            both = min(planned.shape[1], theirs.shape[1])
            found["teacher_distance"] = float((planned[:, :both] - theirs[:, :both]).abs().mean())
            if self.thoughts is not None:
                assert answers.handed is not None
                fresh = Thought(values=answers.handed.float(), age=torch.zeros(batch.size)).to(planned.device)
                paired = normalizer.normalize(self.student.chunk(batch, thought=fresh))
                found["teacher_distance_paired"] = float((paired[:, :both] - theirs[:, :both]).abs().mean())
        return found

    @cached_property
    def _held_out(self) -> Batch | None:
        """Some windows of held-out demonstrations of the first dataset that has any."""
        data = self.config.train.data
        for part in data.parts:
            store = EpisodeStore(part.root)
            _, aside = split_episodes(store, held_out_share=data.held_out, seed=data.split_seed)
            chosen = [place for place in aside if not store.episodes[place].play][:CHECKED_EPISODES]
            if chosen:
                windows = WindowDataset(store, window_spec(self.config.train), episodes=chosen)
                return windows.batch(range(0, len(windows), math.ceil(len(windows) / CHECKED_WINDOWS)))
        return None

    def save(self, folder: Path, *, tensors: dict[str, Tensor], provenance: dict[str, Any]) -> None:
        ours = "student."
        self.student.save_pretrained(
            folder,
            tensors={name.removeprefix(ours): value for name, value in tensors.items() if name.startswith(ours)},
            provenance={
                **provenance,
                "losses": self.active,
                "teacher": self.teacher.provenance if self.teacher is not None and self.config.taught else None,
                **({} if self.rounds is None else {"on_policy_success": self.rounds.success}),
            },
        )


def seen_by(model: ModelConfig, *, chunk: int) -> ModelConfig:
    """What a student's windows hold: what this model's do, with a chunk of its own, and no future, voxels and prefixes."""
    model = copy.deepcopy(model)
    model.chunk, model.future, model.occupancy, model.prefix.share = chunk, [], OccupancyConfig(), 0.0
    return model


def _one_after_the_other() -> Any:
    """The main process first, so that the others read what it wrote."""
    return _processes().main_process_first()


def _processes() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available())
