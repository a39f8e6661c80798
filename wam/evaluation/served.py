"""A student as a robot meets it: exported, behind a server in a process of its own, asked by a client; its teacher beside it.

The same unseen starts for both, one episode after the other, so that what a chunk cost can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from wam.control.client import RemotePolicy
from wam.control.export import export_student
from wam.control.policy import Policy
from wam.control.server.config import PolicyOptions, ServeConfig
from wam.control.server.running import served_apart
from wam.control.wam_policy import load_policy
from wam.evaluation.figures import Measured
from wam.evaluation.together import Side, TogetherConfig, drive_side
from wam.files import sha256
from wam.model.student import Student
from wam.simulation.environment import Environment

SERVED, DIRECT = "served", "teacher_direct"


def drive_served(
    student: Path,
    teacher: Path,
    config: TogetherConfig,
    folder: Path,
    *,
    make: Callable[..., Environment],
    make_teachers: Callable[..., Environment],
) -> tuple[Side, Side]:
    """(teacher asked directly, student asked through a server). student, teacher: checkpoints; config.starts of each task;
    folder: of the episodes' records and the export. make, make_teachers: environments with the cameras of each."""
    weights = sha256(student / "model.safetensors")
    with ExitStack() as open_:

        def remote() -> Policy:
            export = folder / "export"
            source = {"checkpoint": str(student), "sha256": weights}
            export_student(Student.from_pretrained(student), export, steps=config.student_steps, source=source)
            options = PolicyOptions(threads=config.threads or 1)
            address, _ = open_.enter_context(served_apart(export, ServeConfig(port=0, policy=options)))
            policy = RemotePolicy(address)
            open_.callback(policy.close)
            return policy

        served = drive_side(
            SERVED,
            remote,
            config,
            folder,
            identity={"checkpoint": weights, "steps": config.student_steps},
            make=make,
        )
    direct = drive_side(
        DIRECT,
        partial(load_policy, teacher, steps=config.teacher_steps, threads=config.threads),
        config,
        folder,
        identity={"checkpoint": sha256(teacher / "model.safetensors"), "steps": config.teacher_steps},
        make=make_teachers,
    )
    return direct, served


def add_served(found: Measured, direct: Side, served: Side) -> None:
    """Success through the server, and what a chunk cost there and of the teacher."""
    found.add(f"success_{served.name}", served.success, len(served.episodes))
    for side in (served, direct):
        found.add(f"chunk_ms_{side.name}", side.chunk_ms, side.chunks)
