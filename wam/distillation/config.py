"""What a distillation is: a teacher, a student, and named losses with weights. YAML fills it in.

demonstrations    the dataset's own actions: cloning, and the whole of the honest control
teacher_actions   the teacher's chunks for the dataset's frames, random play told a task included
imagined          the teacher's chunks for frames that it imagined after pushed actions
features          the teacher's context: what modulates its actions
flow              a flow head's map between points of the teacher's denoising path
on_policy         the teacher's chunks for frames that the student itself came to (DAgger, Ross et al. 2011); where its chunks
                  come late, what the teacher did once they were there
continued         the dataset's own actions, going on from those that went before (`student.prefix`, see `wam.model.prefix`)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from wam.contracts import expected
from wam.model.config import ModelConfig
from wam.model.student import StudentConfig
from wam.training.config import TrainConfig

LOSSES = ("demonstrations", "teacher_actions", "imagined", "features", "flow", "on_policy", "continued")


@dataclass(kw_only=True)
class TeacherConfig:
    """run: a run or checkpoint of a world-action model. steps: of its sampling, and so the points of its denoising path.
    draws: chunks for each frame, from noises of their own, at the price of one context. retell: random play is told a
    sentence of a task in the same environment, so that its frames teach too; else they are left out. labels: folder in
    which its answers are kept, for other runs to read; empty: `labels` in the run's own. seed: of its noise, and not of the
    student's training, so that runs of several seeds share them."""

    run: str = ""
    steps: int = 1
    draws: int = 1
    retell: bool = True
    labels: str = ""
    seed: int = 0
    batch_size: int = 96


@dataclass(kw_only=True)
class ImaginedConfig:
    """windows: frames imagined, once. share: rows of them in a batch, for each row of the dataset. push: spread of what is
    added to a demonstration's chunk before its end is imagined, in units in which an action's usual range is -1 to 1. steps:
    of denoising the frame."""

    windows: int = 2000
    share: float = 0.25
    push: float = 0.5
    steps: int = 1


@dataclass(kw_only=True)
class OnPolicyConfig:
    """rounds: how often the student drives, at even distances over training. episodes: of each environment, each round.
    environments: those of the dataset where none is named. execute: actions of each chunk; max_steps: of an episode.
    share: rows of what it saw in a batch, for each row of the dataset, from the first round on to the end of training.
    steps: of a flow head's sampling while it drives. late: ticks that its chunks take at most; an episode draws its own
    number, and the student goes on from what is settled by then (`student.prefix`)."""

    rounds: int = 2
    episodes: int = 5
    environments: list[str] = field(default_factory=list)
    execute: int = 6
    max_steps: int = 150
    share: tuple[float, float] = (0.25, 0.5)
    steps: int = 1
    late: int = 0


@dataclass(kw_only=True)
class DistillConfig:
    """train: the run; its `model` is the teacher's, so that the student sees what its teacher sees, and may be given only
    where there is no teacher. losses: weights by name; a loss that is not named, or has weight 0, is not computed. word_noise:
    words of a sentence that the student is told as unknown, as in training a teacher. prefix_noise: of the loss `continued`, as
    `model.prefix.noise` of a teacher."""

    train: TrainConfig = field(default_factory=TrainConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    losses: dict[str, float] = field(default_factory=lambda: {"demonstrations": 1.0, "teacher_actions": 1.0})
    imagined: ImaginedConfig = field(default_factory=ImaginedConfig)
    on_policy: OnPolicyConfig = field(default_factory=OnPolicyConfig)
    word_noise: float = 0.2
    prefix_noise: float = 0.0

    @property
    def active(self) -> dict[str, float]:
        """The losses that are computed."""
        return {name: self.losses[name] for name in LOSSES if self.losses.get(name, 0.0) > 0}

    @property
    def taught(self) -> bool:
        """Whether anything is asked of a teacher."""
        return bool(set(self.active) - {"demonstrations", "continued"})

    @property
    def paired(self) -> bool:
        """Whether the student is handed its teacher's thoughts."""
        return self.student.thought.kind != "none"

    def validate(self) -> None:
        self.student.validate()
        if unknown := set(self.losses) - set(LOSSES):
            raise expected(f"losses among {', '.join(LOSSES)}", got=sorted(unknown), do="mend `losses`")
        if not set(self.active) - {"on_policy"} or any(weight < 0 for weight in self.losses.values()):
            raise expected(
                "loss weights of 0 or more, one of them above, and not of on_policy alone, which begins with a student",
                got=self.losses,
                do="mend `losses`",
            )
        if self.taught and not self.teacher.run:
            raise expected(
                f"a teacher for {', '.join(set(self.active) - {'demonstrations'})}",
                got="none",
                do="set teacher.run to a run of a world-action model, or use `losses: {demonstrations: 1}`",
            )
        if self.paired and not self.taught:
            raise expected(
                f"losses that ask a teacher, whose thoughts ({self.student.thought.kind}) the student is handed",
                got=self.losses,
                do="add `teacher_actions`, or set student.thought.kind=none",
            )
        if self.teacher.run and self.train.model != ModelConfig():
            raise expected(
                "no train.model beside a teacher, whose model says what is seen", got="one", do="leave it out"
            )
        if ("continued" in self.active) != (self.student.prefix > 0):
            raise expected(
                "the loss `continued` where student.prefix is above 0, and only there",
                got=f"student.prefix={self.student.prefix} and losses {', '.join(self.active)}",
                do="set both, or neither",
            )
        if "flow" in self.active and self.student.head != "flow":
            raise expected("student.head=flow for the loss `flow`", got=self.student.head, do="change one of the two")
        if "flow" in self.active and self.teacher.steps < 2:
            raise expected(
                "a denoising path of two steps or more for the loss `flow`",
                got=f"teacher.steps={self.teacher.steps}",
                do="raise it, say to 4",
            )
        if min(self.teacher.steps, self.teacher.draws, self.teacher.batch_size) < 1:
            raise expected("teacher.steps, draws and batch_size of 1 or more", got=self.teacher, do="raise them")
        shares = (self.imagined.share, *self.on_policy.share)
        if any(not 0 <= share <= 4 for share in shares) or min(self.imagined.windows, self.on_policy.rounds) < 1:
            raise expected(
                "shares from 0 to 4, and imagined.windows and on_policy.rounds of 1 or more",
                got=f"{shares}, {self.imagined.windows} and {self.on_policy.rounds}",
                do="mend them, or give the loss weight 0",
            )
        if not 1 <= self.on_policy.execute <= self.student.chunk:
            raise expected(
                f"on_policy.execute from 1 to the chunk's {self.student.chunk}",
                got=self.on_policy.execute,
                do="execute fewer actions, or train a longer chunk",
            )
        if not 0 <= self.on_policy.late <= min(self.student.prefix, self.student.chunk // 2):
            raise expected(
                f"on_policy.late from 0 to student.prefix ({self.student.prefix}) and half the chunk's {self.student.chunk}",
                got=self.on_policy.late,
                do="lower it, or train a longer chunk and prefix",
            )
        if self.on_policy.late and self.paired:
            raise expected(
                "on_policy.late=0 of a student that is handed thoughts",
                got=self.on_policy.late,
                do="set student.thought.kind=none",
            )
