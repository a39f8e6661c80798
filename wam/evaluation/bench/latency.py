"""What a chunk costs on one core, from an observation to actions: the teacher in torch, and its student in ONNX."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from wam.checkpoint import Checkpoint
from wam.contracts import Observation, expected
from wam.control.export import export_student
from wam.control.exported import ExportedPolicy
from wam.control.policy import Policy
from wam.control.wam_policy import WamPolicy
from wam.evaluation.bench.sampling import make_model
from wam.evaluation.bench.timing import BenchResult, Target, time_in_turns
from wam.model.config import ModelConfig
from wam.model.pretrained import from_pretrained
from wam.model.student import Student, StudentConfig
from wam.model.wam import WorldActionModel
from wam.training.state import newest_checkpoint

CAMERAS = ("side", "top")
IN_A_ROW = 20
"""Chunks of the student in each turn, so that it is timed as it runs and not as it starts after another's work."""


def bench_latency(
    *,
    run: Path | None = None,
    config: ModelConfig | None = None,
    student: StudentConfig | None = None,
    steps: int = 10,
    repeats: int = 40,
    chunks: int = 1000,
) -> BenchResult:
    """student_speedup: a chunk of the teacher, `steps` denoising steps on its cached context, over one of the student in ONNX,
    both from an observation on one thread; cpu_speedup: the same of processor time. joint_speedup: the same where the
    teacher also imagines. p99_ms: of `chunks` of the student, one after the other; cpu_p99_ms: of processor time, which
    other programs disturb less.

    run: a distilled run, measured with the teacher that its provenance names; without one, random weights of the default
    sizes, which cost the same.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        teacher, pupil = _pair(run, config, student)
        return _measure(teacher, pupil, steps=steps, repeats=repeats, chunks=chunks, run=run)
    finally:
        torch.set_num_threads(threads)


def _pair(
    run: Path | None, config: ModelConfig | None, student: StudentConfig | None
) -> tuple[WorldActionModel, Student]:
    if run is None:
        teacher = make_model(config or ModelConfig(), torch.device("cpu"))
        c = teacher.config
        seen = student or StudentConfig()
        seen.views, seen.image_size, seen.history = c.views, c.image_size, c.history
        seen.action_dim, seen.state_dim = c.action_dim, c.state_dim
        pupil = Student(seen).eval()
        pupil.cameras = teacher.cameras = CAMERAS[: c.views]
        return teacher, pupil
    opened = Checkpoint.load(newest_checkpoint(run))
    named = opened.provenance.get("teacher")
    if not named:
        raise expected(f"a student in {run} that had a teacher", got="none", do="name a run of `wam distill`")
    teacher = from_pretrained(named["checkpoint"])
    return teacher, Student.from_checkpoint(opened)


def _measure(
    teacher: WorldActionModel, pupil: Student, *, steps: int, repeats: int, chunks: int, run: Path | None
) -> BenchResult:
    seen = [example_observation(pupil)]
    with tempfile.TemporaryDirectory() as folder:
        exported = export_student(pupil, Path(folder))
        compact = ExportedPolicy(folder)
        slow = {
            name: WamPolicy(teacher, cameras=pupil.cameras, conditional=name, steps=steps)
            for name in ("policy", "joint")
            if name == "policy" or "future" in teacher.config.streams
        }
        contestants = {name: (lambda policy=policy: policy.act(seen)) for name, policy in slow.items()}
        plain = WamPolicy(pupil, steps=1)
        timings = time_in_turns(
            {**contestants, "student": lambda: _drive(compact, seen), "student_torch": lambda: _drive(plain, seen)},
            repeats=repeats,
        )
        wall, cpu = _each(compact, seen, chunks)
    found = {name: timings.compare(name, "student") for name in slow}
    figures = {
        "student_speedup": IN_A_ROW * found["policy"]["ratio"],
        "cpu_speedup": IN_A_ROW * found["policy"]["cpu_ratio"],
        **({"joint_speedup": IN_A_ROW * found["joint"]["ratio"]} if "joint" in found else {}),
        "p99_ms": float(np.quantile(wall, 0.99)),
        "p50_ms": float(np.quantile(wall, 0.5)),
        "cpu_p99_ms": float(np.quantile(cpu, 0.99)),
        "torch_p50_ms": 1e3 * timings.median("student_torch") / IN_A_ROW,
    }
    return BenchResult(
        name="latency",
        figures=figures,
        detail={
            "teacher_steps": steps,
            "teacher_millions": millions(teacher),
            "student_millions": millions(pupil),
            "student_mib": exported.bytes / 2**20,
            "head": pupil.config.head,
            "chunks": chunks,
            "student_chunks_a_turn": IN_A_ROW,
            "run": None if run is None else str(run),
            **found,
        },
        n=repeats,
        targets={"student_speedup": Target(value=50.0), "p99_ms": Target(value=10.0, at_least=False)},
    )


def example_observation(student: Student) -> Observation:
    c, rng = student.config, np.random.default_rng(0)
    size = (c.image_size, c.image_size, 3)
    return Observation(
        images={name: rng.integers(0, 256, size, np.uint8) for name in student.cameras},
        state=rng.standard_normal(c.state_dim, np.float32),
        instruction="pick up the red cube and put it on the shelf",
    )


def _drive(policy: Policy, seen: list[Observation]) -> None:
    for _ in range(IN_A_ROW):
        policy.act(seen)


def _each(policy: ExportedPolicy, seen: list[Observation], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of each of `count` chunks, on the clock and of processor time."""
    taken = np.empty((2, count))
    for i in range(count):
        begun, used = time.perf_counter(), time.process_time()
        policy.act(seen)
        taken[:, i] = time.perf_counter() - begun, time.process_time() - used
    return 1e3 * taken[0], 1e3 * taken[1]


def millions(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6
