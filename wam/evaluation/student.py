"""How much of its teacher's success a student keeps, on the same unseen starts, with controls beside it.

The honest control is the same student cloned from the demonstrations alone. Runs of other training seeds may be named too;
then rates are means over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from wam.checkpoint import Checkpoint
from wam.contracts import expected
from wam.control.wam_policy import load_policy
from wam.control.wam_policy import teacher_of as named_teacher
from wam.evaluation.closed_loop import ClosedLoopResult, evaluate_policy
from wam.evaluation.evaluate import sentences_for
from wam.evaluation.figures import Measured
from wam.evaluation.intervals import bootstrap
from wam.evaluation.rollout import LoopSettings
from wam.evaluation.served import add_served, drive_served
from wam.evaluation.together import TogetherConfig
from wam.files import sha256
from wam.progress import Progress
from wam.simulation.environment import Environment, make_environment
from wam.training.state import newest_checkpoint


@dataclass(kw_only=True)
class StudentEvaluateConfig(TogetherConfig):
    """seeds: further runs of the student, of other training seeds. controls: name -> runs, such as
    {cloned: [runs/distill/cloned-0]}. served: starts of each task from which the student, exported, is also asked through a
    server; 0: none. processes: as in `wam eval`. output: empty: evaluation/student of the run."""

    starts: int = 50
    seeds: list[str] = field(default_factory=list)
    controls: dict[str, list[str]] = field(default_factory=dict)
    served: int = 0
    processes: int = 1

    def validate(self) -> None:
        super().validate()
        if {"teacher", "student"} & set(self.controls):
            raise expected(
                "controls of other names than teacher and student",
                got=sorted(self.controls),
                do="use configs/eval/student.yaml",
            )
        if self.served < 0:
            raise expected("0 or more starts through a server", got=self.served, do="mend `served`")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One contestant. won (seeds, starts): success from each start of each task."""

    name: str
    results: tuple[ClosedLoopResult, ...]

    @property
    def won(self) -> np.ndarray:
        return np.array([[episode.success for episode in result.episodes] for result in self.results], float)

    @property
    def success(self) -> float:
        return float(self.won.mean())


def evaluate(run: Path, config: StudentEvaluateConfig, *, say: Callable[[str], None] = print) -> Measured:
    """Measure the newest checkpoints; episodes already on record are not run again. Raises WamError where the run had no
    teacher and none is named."""
    config.validate()
    folder = Path(config.output) if config.output else run / "evaluation" / "student"
    hired = teacher_of(run, config)
    teacher = _drive("teacher", [hired], config.teacher_steps, config, folder, say)
    student = _drive("student", [run, *map(Path, config.seeds)], config.student_steps, config, folder, say)
    controls = [
        _drive(name, [Path(other) for other in runs], config.student_steps, config, folder, say)
        for name, runs in config.controls.items()
    ]
    found = figures(teacher, student, controls)
    if config.served:
        checkpoints = (newest_checkpoint(run), newest_checkpoint(hired))
        say(f"served: {checkpoints[0]}")
        few, makes = replace(config, starts=config.served), [seen_by(checkpoint) for checkpoint in checkpoints]
        sides = drive_served(*checkpoints, few, folder, make=makes[0], make_teachers=makes[1])
        add_served(found, *sides)
    return found


def figures(teacher: Side, student: Side, controls: Sequence[Side]) -> Measured:
    """Success of each side, and of all but the teacher the share of its success that they keep; NaN, which passes nothing, of
    a teacher that never succeeds."""
    found = Measured()
    for side in (student, *controls):
        tail = "" if side is student else f"_{side.name}"
        kept = shared(side, teacher)
        found.add(f"retained{tail}", kept(np.arange(teacher.won.shape[1])), side.won.size)
        spread = bootstrap(np.arange(teacher.won.shape[1]), statistic=kept)
        found.add(f"retained{tail}_low", spread.low, side.won.size)
        found.add(f"retained{tail}_high", spread.high, side.won.size)
    for side in (teacher, student, *controls):
        found.add(f"success_{side.name}", side.success, side.won.size)
        found.add(f"success_{side.name}_worst", min(r.worst for r in side.results), side.won.size)
        if len(side.results) > 1:
            found.add(f"success_{side.name}_worst_seed", float(side.won.mean(1).min()), side.won.size)
    return found


def shared(side: Side, teacher: Side) -> Callable[[np.ndarray], float]:
    """From starts (as indices, with repeats) to the side's success over the teacher's on them."""

    def kept(starts: np.ndarray) -> float:
        own = teacher.won[:, starts].mean()
        return float(side.won[:, starts].mean() / max(own, 1e-9)) if teacher.won.any() else math.nan

    return kept


def teacher_of(run: Path, config: StudentEvaluateConfig) -> Path:
    """The teacher's checkpoint, which still has to be what the student learned from."""
    if config.teacher:
        return Path(config.teacher)
    return named_teacher(newest_checkpoint(run))


def _drive(
    name: str,
    runs: Sequence[Path],
    steps: int,
    config: StudentEvaluateConfig,
    folder: Path,
    say: Callable[[str], None],
) -> Side:
    told = sentences_for(config.environments, held_out=config.held_out_sentences)
    results = []
    for number, run in enumerate(runs):
        checkpoint = newest_checkpoint(run)
        say(f"{name}: {checkpoint}")
        make = seen_by(checkpoint)
        with Progress("episodes", len(config.environments) * config.starts) as bar:
            results.append(
                evaluate_policy(
                    partial(load_policy, checkpoint, steps=steps, threads=config.threads),
                    config.environments,
                    seeds=range(config.first_start, config.first_start + config.starts),
                    instructions=told,
                    settings=LoopSettings(execute=config.execute, max_steps=config.max_steps, keep_failures=False),
                    record_failures=0,
                    processes=config.processes,
                    resume=folder / f"{name}-{number}.jsonl",
                    make_environment=make,
                    identity={
                        "checkpoint": sha256(checkpoint / "model.safetensors"),
                        "steps": steps,
                        "held_out_sentences": config.held_out_sentences,
                    },
                    progress=lambda done, total, episode: bar.update(done),
                )
            )
    return Side(name=name, results=tuple(results))


def seen_by(checkpoint: Path) -> Callable[..., Environment]:
    """`make_environment` with the cameras and the size of pictures that the checkpoint's model looks at."""
    opened = Checkpoint.load(checkpoint)
    held = opened.config
    own = next(held[kind] for kind in ("student", "cloning", "model") if kind in held)
    trained = opened.provenance.get("config", {}).get("model", {})
    size = own.get("image_size") or trained.get("image_size")
    if not size:
        raise expected(f"a checkpoint that says its pictures' size in {checkpoint}", got="none", do="train it anew")
    return partial(make_environment, cameras=held["cameras"] or None, image_size=size)
