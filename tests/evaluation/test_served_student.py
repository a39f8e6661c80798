"""A student behind a server drives as it does in the same process, and what it cost is told."""

from __future__ import annotations

from pathlib import Path

from wam.contracts import ActionSpace
from wam.evaluation.figures import Measured, meaning
from wam.evaluation.served import DIRECT, SERVED, add_served, drive_served
from wam.evaluation.student import seen_by
from wam.evaluation.together import TogetherConfig
from wam.model.student import Student, StudentConfig
from wam.simulation.environment import make_environment

TASK = "metaworld/faucet-open-v3"


def space_of(task: str) -> ActionSpace:
    environment = make_environment(task, image_size=16)
    environment.close()
    return environment.action_space


def test_a_served_student_does_what_it_does_in_this_process(tmp_path: Path) -> None:
    student = tmp_path / "student"
    model = Student(StudentConfig(size=0.5, width=32, channels=8, chunk=8, state_dim=7), action_space=space_of(TASK))
    model.save_pretrained(student, cameras=("side", "top"), provenance={"config": {"model": {"image_size": 64}}})
    config = TogetherConfig(environments=[TASK], starts=1, max_steps=12, execute=4)
    direct, served = drive_served(
        student, student, config, tmp_path / "out", make=seen_by(student), make_teachers=seen_by(student)
    )
    assert (direct.name, served.name) == (DIRECT, SERVED)
    ours, theirs = direct.episodes[0], served.episodes[0]
    assert (ours.steps, ours.chunks, ours.success) == (theirs.steps, theirs.chunks, theirs.success) == (12, 3, False)
    assert abs(ours.reward - theirs.reward) < 1e-3 * abs(ours.reward), "the same chunks lead to the same rewards"
    assert (tmp_path / "out" / "export" / "export.json").is_file()
    found = Measured()
    add_served(found, direct, served)
    assert found.counts["chunk_ms_served"] == 3
    assert all(value > 0 for name, value in found.values.items() if name.startswith("chunk_ms"))
    assert all(meaning(name) for name in found.values)
