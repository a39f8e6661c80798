"""What a student keeps: shares on the same starts, controls beside it, and a teacher that has to be the one it learned from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.evaluation_fakes import DeafPolicy, ObedientPolicy, SquareEnvironment
from tests.model.test_student import make_student
from wam.contracts import WamError
from wam.evaluation import student as module
from wam.evaluation.closed_loop import ClosedLoopResult
from wam.evaluation.episode_log import Episode
from wam.evaluation.student import Side, StudentEvaluateConfig, evaluate, figures, seen_by, teacher_of
from wam.files import sha256
from wam.model.cloning import CloningConfig, CloningPolicy


def side(name: str, *seeds: list[int]) -> Side:
    """Success (1) or not of each start of one task, for each training seed."""
    return Side(
        name=name,
        results=tuple(
            ClosedLoopResult(
                episodes=tuple(
                    Episode(
                        environment="t", seed=i, variant="policy", instruction="", success=bool(flag), steps=1, reward=0
                    )
                    for i, flag in enumerate(flags)
                )
            )
            for flags in seeds
        ),
    )


def test_what_is_retained_is_a_share_of_the_teachers_success() -> None:
    found = figures(
        side("teacher", [1, 1, 1, 1, 0]), side("student", [1, 1, 1, 0, 0]), [side("cloned", [1, 0, 0, 0, 1])]
    )
    values = found.values
    assert values["retained"] == pytest.approx(0.75)
    assert values["retained_cloned"] == pytest.approx(0.5)
    assert values["retained_low"] <= values["retained"] <= values["retained_high"]
    assert (values["success_teacher"], values["success_student"], values["success_cloned"]) == (0.8, 0.6, 0.4)
    assert not found.passed
    assert figures(side("teacher", [1, 0]), side("student", [1, 0]), []).passed


def test_seeds_are_averaged_and_the_worst_is_said() -> None:
    found = figures(side("teacher", [1, 1]), side("student", [1, 1], [1, 0], [0, 0]), [])
    assert found.values["retained"] == pytest.approx(0.5)
    assert found.values["success_student_worst_seed"] == 0
    assert found.counts["retained"] == 6


def test_an_interval_is_over_starts_that_both_met() -> None:
    same = np.random.default_rng(0).integers(0, 2, 200).tolist()
    found = figures(side("teacher", same), side("student", same), []).values
    assert found["retained_low"] == found["retained_high"] == 1


def test_a_teacher_that_never_succeeds_measures_nothing() -> None:
    found = figures(side("teacher", [0, 0]), side("student", [1, 0]), [])
    assert np.isnan(found.values["retained"])
    assert not found.passed


def saved(folder: Path, provenance: dict[str, object] | None = None) -> Path:
    make_student().save_pretrained(folder, cameras=("front", "back"), provenance=provenance)
    return folder


def test_the_teacher_is_the_one_that_the_student_learned_from(tmp_path: Path) -> None:
    teacher = saved(tmp_path / "teacher")
    weights = teacher / "model.safetensors"
    named = {"checkpoint": str(teacher), "sha256": sha256(weights)}
    run = saved(tmp_path / "run", {"teacher": named})
    assert teacher_of(run, StudentEvaluateConfig()) == teacher
    assert teacher_of(run, StudentEvaluateConfig(teacher="other")) == Path("other")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(WamError, match="none or another"):
        teacher_of(run, StudentEvaluateConfig())
    with pytest.raises(WamError, match="that had a teacher"):
        teacher_of(saved(tmp_path / "alone"), StudentEvaluateConfig())


def test_all_sides_drive_from_the_same_starts_and_episodes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, run, control = (saved(tmp_path / name) for name in ("teacher", "run", "control"))
    drivers = {teacher: ObedientPolicy, run: ObedientPolicy, control: DeafPolicy}
    monkeypatch.setattr(module, "load_policy", lambda folder, **_: drivers[folder]())
    pictures = []

    def make(name: str, *, cameras: list[str], image_size: int) -> SquareEnvironment:
        pictures.append((tuple(cameras), image_size))
        return SquareEnvironment(name)

    monkeypatch.setattr(module, "make_environment", make)
    monkeypatch.setattr(module, "sentences_for", lambda names, held_out: {})
    config = StudentEvaluateConfig(
        environments=["square/middle", "square/away"],
        teacher=str(teacher),
        controls={"deaf": [str(control)]},
        starts=4,
        max_steps=20,
        execute=2,
    )
    found = evaluate(run, config, say=lambda _: None).values
    assert set(pictures) == {(("front", "back"), make_student().config.image_size)}
    assert (found["retained"], found["retained_deaf"], found["success_deaf_worst"]) == (1.0, 0.5, 0.0)
    logs = run / "evaluation" / "student"
    starts = [
        sorted(
            (episode["environment"], episode["seed"])
            for episode in map(json.loads, (logs / f"{name}-0.jsonl").read_text().splitlines()[1:])
        )
        for name in ("teacher", "student", "deaf")
    ]
    assert starts[0] == starts[1] == starts[2]
    assert len(starts[0]) == 8
    monkeypatch.setattr(module, "load_policy", lambda *_, **__: pytest.fail("driven again"))
    assert evaluate(run, config, say=lambda _: None).values == found


def test_what_cannot_be_compared_says_so(tmp_path: Path) -> None:
    for config, words in (
        (StudentEvaluateConfig(), "at least one environment"),
        (StudentEvaluateConfig(environments=["t"], controls={"teacher": ["x"]}), "controls of other names"),
    ):
        with pytest.raises(WamError, match=words):
            evaluate(tmp_path, config)


def test_a_cloning_policy_is_driven_at_the_size_that_its_run_says_and_at_no_other(tmp_path: Path) -> None:
    policy = CloningPolicy(CloningConfig(channels=8, width=16))
    for name, told in (("said", {"config": {"model": {"image_size": 32}}}), ("unsaid", {})):
        policy.save_pretrained(tmp_path / name, tensors=policy.state_dict(), cameras=("front",), provenance=told)
    assert seen_by(tmp_path / "said").keywords["image_size"] == 32  # type: ignore[attr-defined]
    with pytest.raises(WamError, match="pictures' size"):
        seen_by(tmp_path / "unsaid")
