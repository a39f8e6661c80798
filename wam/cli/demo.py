"""`wam demo`: from nothing to a report in minutes on a laptop: collect, train, evaluate, distil, report.

Each part goes on where an interrupted demo stopped; the figures go to `summary.json`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from wam.distillation.config import DistillConfig
from wam.distillation.stage import distill
from wam.evaluation.evaluate import EvaluateConfig, Evaluation, evaluate
from wam.evaluation.figures import save_figures
from wam.evaluation.latent_action.config import LatentActionEvaluateConfig
from wam.evaluation.latent_action.evaluate import evaluate as evaluate_latent_action
from wam.evaluation.occupancy import OccupancyEvaluateConfig
from wam.evaluation.occupancy import evaluate as evaluate_occupancy
from wam.evaluation.student import StudentEvaluateConfig
from wam.evaluation.student import evaluate as evaluate_student
from wam.evaluation.summary import write_summary
from wam.evaluation.terminal import format_gates
from wam.files import write_json
from wam.progress import Progress, duration
from wam.simulation.collect import collect
from wam.simulation.config import CollectConfig
from wam.simulation.label import label_occupancy
from wam.training.config import DataPart, TrainConfig
from wam.training.trainer import train
from wam.visualization.latent_action import save_evaluation
from wam.visualization.report import write_report
from wam.visualization.voxels import save_evaluation as save_voxels

LATENT_WINDOWS = 240
"""Of each kind: enough for a probe, and seconds of work."""
REST = 1.0
"""Reading the data into memory, checks, evaluation and report took .83 to .96 of the time of collecting in four runs."""
STUDENT = "student"
"""The student's run, in that of its teacher."""
LEAST = 4.0
"""Minutes of training."""


@dataclass(kw_only=True)
class DemoConfig:
    """The configs of the chain. minutes: of the whole, where training is given no number of steps; it fills what the
    simulator leaves of them, at least four. Voxels are a part of it where train.model.occupancy.loss_weight is above 0, and
    a student where student_minutes, those of its training, are: both on top of `minutes`. play_share: of the training
    windows, how many are of random play. latent_action: a trained latent-action tokenizer that is shown the demo's own
    videos; without one the report lacks that part."""

    collect: CollectConfig = field(default_factory=CollectConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    voxels: OccupancyEvaluateConfig = field(default_factory=OccupancyEvaluateConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    student: StudentEvaluateConfig = field(default_factory=StudentEvaluateConfig)
    minutes: float = 9.4
    student_minutes: float = 0.0
    play_share: float = 0.3
    latent_action: str = "tokenizers/latent_action"


def run_demo(config: DemoConfig, output: Path) -> int:
    """Status 0 if every gate passed, 1 if one failed (the report shows which)."""
    clock = _Clock(output / "demo.json")
    with clock.part("collect"):
        print("1/5  collecting demonstrations and play in the simulator", flush=True)
        data = output / "data"
        with Progress("episodes", len(config.collect.jobs())) as bar:
            collect(
                config.collect,
                data,
                resume=(data / "meta").exists(),
                progress=lambda done, total: bar.update(done),
            )
    if config.train.model.occupancy.loss_weight:
        with clock.part("label"), Progress("voxels of episodes", len(config.collect.jobs())) as bar:
            asked = config.train.model.occupancy
            label_occupancy(
                data,
                asked.grid,
                colour=asked.colour_weight > 0,
                progress=lambda done, total: bar.update(done),
            )
    with clock.part("train"):
        print("2/5  training one model of video, actions and language", flush=True)
        config.train.output = str(output)
        spent = clock.seconds["collect"] / 60
        config.train.minutes = training_minutes(config.minutes, collected=spent)
        config.train.data.parts = [DataPart(root=str(data), name="demo", play_share=config.play_share)]
        train(config.train)
    with clock.part("evaluate"):
        print("3/5  evaluating: world-model gates and unseen starts", flush=True)
        found = evaluate(output, config.evaluate, say=lambda text: print(f"     {text}", flush=True))
    with clock.part("latent_action"):
        _read_latents(config, output)
    if config.train.model.occupancy.loss_weight:
        with clock.part("voxels"):
            print("     voxels of the held-out episodes", flush=True)
            voxels = evaluate_occupancy(output, config.voxels)
            save_voxels(voxels, output / "evaluation" / "occupancy", seed=config.train.seed)
    if config.student_minutes:
        _teach(config, output, clock)
    _summarize(output, config, found, clock)
    with clock.part("report"):
        print("5/5  writing the report", flush=True)
        page = write_report(output)
    minutes = _summarize(output, config, found, clock)
    print()
    print(format_gates(found.gates))
    if "policy" in found.success:
        for task, rate in found.success["policy"].tasks.items():
            print(f"  success  {task:42s} {rate}")
    print(f"\n{duration(minutes * 60)} in all. Open {page}")
    return 0 if all(gate.passed for gate in found.gates) else 1


def training_minutes(whole: float, *, collected: float) -> float:
    """What is left of the whole for training steps once collecting took its minutes, and at least `LEAST`: on a slow
    machine a demo that takes longer says more than one that learned nothing.

    The rest of the demo is reckoned from collecting, which shows how fast this machine simulates and reads video."""
    return max(LEAST, whole - (1 + REST) * collected)


def _teach(config: DemoConfig, output: Path, clock: _Clock) -> None:
    """A compact student of the model, and how it does alone and behind a server."""
    config.distill.teacher.run = str(output)
    own = config.distill.train
    own.output, own.data.parts = str(output / STUDENT), config.train.data.parts
    if not own.steps:
        own.minutes = config.student_minutes
    with clock.part("distill"):
        print("4/5  distilling a compact student for real-time control", flush=True)
        distill(config.distill)
    with clock.part("student"):
        config.student.output = str(output / "evaluation" / STUDENT)
        found = evaluate_student(output / STUDENT, config.student, say=lambda text: print(f"     {text}", flush=True))
        save_figures(found, Path(config.student.output), seed=config.student.seed)


def _read_latents(config: DemoConfig, output: Path) -> None:
    """What a tokenizer that never saw an action reads off the demo's held-out videos."""
    if not config.latent_action:
        return
    if not (Path(config.latent_action) / "provenance.json").is_file():
        print(f"     no tokenizer in {config.latent_action}: the report goes without latent actions", flush=True)
        return
    print("     latent actions of the held-out videos", flush=True)
    asked = LatentActionEvaluateConfig(data=str(output / "data"), windows=LATENT_WINDOWS, threads=config.train.threads)
    found = evaluate_latent_action(Path(config.latent_action), asked)
    save_evaluation(found, output / "evaluation" / "latent-action", seed=asked.seed)


def _summarize(output: Path, config: DemoConfig, found: Evaluation, clock: _Clock) -> float:
    """Write the figures (the report reads them, so once before it and once with its own time); returns the minutes."""
    minutes = sum(clock.seconds.values()) / 60
    write_summary(
        output / "summary.json",
        {**found.figures, "wall_minutes": minutes},
        n=found.n,
        seeds=[config.train.seed],
        extra={"seconds": clock.seconds},
    )
    return minutes


class _Clock:
    """Seconds spent in each part, over interruptions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        if path.is_file():
            try:
                self.seconds = dict(json.loads(path.read_text()))
            except ValueError:
                self.seconds = {}

    def part(self, name: str) -> _Part:
        return _Part(self, name)


class _Part:
    def __init__(self, clock: _Clock, name: str) -> None:
        self.clock, self.name = clock, name

    def __enter__(self) -> None:
        self.begun = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        spent = self.clock.seconds.get(self.name, 0.0) + time.monotonic() - self.begun
        self.clock.seconds[self.name] = spent
        write_json(self.clock.path, self.clock.seconds)
