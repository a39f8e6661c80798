"""Exported students: what the files compute is what torch computes, and a file that changed is found."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.test_student import make_student
from wam.contracts import Observation, WamError
from wam.control.continuation import Continuation, ContinuingPolicy
from wam.control.export import Format, Precision, export_student
from wam.control.exported import ExportedPolicy, read_export
from wam.control.past import Past
from wam.control.policy import Policy
from wam.control.wam_policy import WamPolicy
from wam.model.student import Student

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def student(**changes: object) -> Student:
    found = make_student(**changes)
    found.cameras = ("side", "top")
    found.normalizer("action").fit([0.1] * 4, [0.5, 1.0, 2.0, 1.0])
    found.text.met[:1000] = True  # type: ignore[union-attr, index, operator]  # training met about half of the words
    return found.eval()


def seen(number: int, *, instruction: str = "open the faucet", state: bool = True) -> Observation:
    rng = np.random.default_rng(number)
    images = {name: rng.integers(0, 256, (16, 16, 3), np.uint8) for name in ("top", "side")}
    return Observation(
        images=images, state=rng.standard_normal(4, np.float32) if state else None, instruction=instruction
    )


SOURCE = {"checkpoint": "runs/x", "sha256": "cd"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student in ONNX."""
    folder, pupil = tmp_path_factory.mktemp("export"), student()
    pupil.provenance = {"random": False, "teacher": {"sha256": "ab"}, "losses": {"demonstrations": 1.0}}
    export_student(pupil, folder, source=SOURCE)
    return folder


@pytest.mark.parametrize(("head", "steps"), [("l1", 1), ("flow", 2)])
def test_an_exported_policy_does_what_the_student_does(head: str, steps: int, tmp_path: Path) -> None:
    pupil = student(head=head, columns=[0, 2])
    found = export_student(pupil, tmp_path, steps=steps)
    exported, plain = ExportedPolicy(tmp_path), WamPolicy(pupil, steps=steps)
    assert isinstance(exported, Policy)
    assert (exported.chunk, exported.cameras) == (8, ("side", "top"))
    assert found.error < 1e-4
    told = (
        "open the faucet",
        "",
        "a sentence with words that training never met",
    )
    for observations in ([seen(1)], [seen(number, instruction=told[number % 3]) for number in range(5)]):
        np.testing.assert_allclose(exported.act(observations), plain.act(observations), atol=1e-4)


def test_actions_stay_within_the_action_space(tmp_path: Path) -> None:
    pupil = student()
    pupil.normalizer("action").fit([5.0] * 4, [1.0] * 4)
    export_student(pupil, tmp_path)
    assert ExportedPolicy(tmp_path).act([seen(1)]).max() == 1


def test_an_exported_student_goes_on_from_settled_actions_as_in_torch(tmp_path: Path) -> None:
    pupil = student(prefix=3)
    found = export_student(pupil, tmp_path)
    assert found.error < 1e-4
    exported, plain = ExportedPolicy(tmp_path), WamPolicy(pupil, steps=1)
    assert isinstance(exported, ContinuingPolicy)
    observations = [seen(1), seen(2), seen(3)]
    actions = np.linspace(-0.4, 0.4, 20, dtype=np.float32).reshape(5, 4)
    left = [
        Continuation(actions=actions, delay=2, method="prefix"),
        None,
        Continuation(actions=-actions, delay=3, method="prefix"),
    ]
    went_on = exported.continue_from(observations, left)
    np.testing.assert_allclose(went_on, plain.continue_from(observations, left), atol=1e-4)
    np.testing.assert_allclose(went_on[2, :3], -actions[:3], atol=1e-6)
    np.testing.assert_allclose(exported.act(observations), plain.act(observations), atol=1e-4)
    assert np.abs(went_on - exported.act(observations))[[0, 2], 3:].max() > 1e-3  # it was read
    np.testing.assert_array_equal(went_on[1], exported.act(observations)[1])


def test_what_was_not_trained_to_go_on_is_refused(written: Path, tmp_path: Path) -> None:
    actions = np.zeros((6, 4), np.float32)
    with pytest.raises(WamError, match="up to 0 settled"):
        ExportedPolicy(written).continue_from([seen(1)], [Continuation(actions=actions, delay=2, method="prefix")])
    export_student(student(prefix=3), tmp_path)
    policy = ExportedPolicy(tmp_path)
    with pytest.raises(WamError, match="got 4, by prefix"):
        policy.continue_from([seen(1)], [Continuation(actions=actions, delay=4, method="prefix")])
    with pytest.raises(WamError, match="by guided"):
        policy.continue_from([seen(1)], [Continuation(actions=actions, delay=2)])
    with pytest.raises(WamError, match="what 2 slots"):
        policy.continue_from([seen(1), seen(2)], [None])
    assert policy.action_space is not None
    policy.action_space = replace(policy.action_space, kind="relative")
    with pytest.raises(WamError, match="absolute or delta"):
        policy.continue_from([seen(1)], [Continuation(actions=actions, delay=2, method="prefix")])


@pytest.mark.parametrize(("format", "precision"), [("torch", "fp32"), ("onnx", "int8")])
def test_every_way_of_exporting_takes_what_is_settled(format: Format, precision: Precision, tmp_path: Path) -> None:
    assert export_student(student(prefix=3), tmp_path, format=format, precision=precision).error < 0.15


def test_a_sentence_is_read_once(written: Path) -> None:
    policy, read = ExportedPolicy(written), []
    run = policy._text.run

    class Counted:
        def run(self, *arguments: object) -> object:
            read.append(1)
            return run(*arguments)

    policy._text = Counted()
    for _ in range(3):
        policy.act([seen(1), seen(2), seen(3, instruction="close it")])
    assert len(read) == 2


def test_eight_bits_are_smaller_and_near(written: Path, tmp_path: Path) -> None:
    short = export_student(student(), tmp_path / "int8", precision="int8")
    assert short.bytes < 0.8 * (written / "student.onnx").stat().st_size  # convolutions keep their 32 bits
    assert 1e-4 < short.error < 0.15
    assert json.loads((tmp_path / "int8" / "export.json").read_text())["precision"] == "int8"


def test_a_program_of_torch_is_written_and_checked(tmp_path: Path) -> None:
    found = export_student(student(head="flow"), tmp_path, format="torch", steps=2)
    assert (tmp_path / "student.pt2").stat().st_size == found.bytes
    assert found.error < 1e-5
    with pytest.raises(WamError, match="an ONNX export"):
        ExportedPolicy(tmp_path)
    with pytest.raises(WamError, match="precision fp32"):
        export_student(student(), tmp_path, format="torch", precision="int8")


@pytest.mark.parametrize("name", ["student.onnx", "text.onnx"])
def test_a_flipped_byte_is_found(name: str, written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WamError, match=f"{name} with sha256"):
        ExportedPolicy(tmp_path)


def test_an_export_says_where_it_came_from(written: Path) -> None:
    about = read_export(written)
    assert about["source"] == SOURCE
    assert about["provenance"]["teacher"] == {"sha256": "ab"}
    assert about["check"]["inputs"] == 16


def test_a_graph_that_differs_from_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wam.control.export.onnx_runner", lambda path: lambda feed: np.zeros((1, 8, 4), np.float32))
    monkeypatch.setattr("wam.control.export._export_text", lambda *_: None)
    with pytest.raises(WamError, match="differ from torch"):
        export_student(student(), tmp_path)
    assert not (tmp_path / "export.json").exists()


def test_what_an_exported_policy_cannot_use_says_so(written: Path, tmp_path: Path) -> None:
    policy = ExportedPolicy(written)
    with pytest.raises(WamError, match="a state of 4 numbers"):
        policy.act([seen(1, state=False)])
    with pytest.raises(WamError, match="images of side, top"):
        policy.act([Observation(images={"side": np.zeros((16, 16, 3), np.uint8)})])
    with pytest.raises(WamError, match="wam export"):
        ExportedPolicy(tmp_path / "nowhere")


def test_an_exported_policy_that_looks_back_remembers_its_slots(tmp_path: Path) -> None:
    pupil = student(history=2)
    export_student(pupil, tmp_path)
    exported, plain = ExportedPolicy(tmp_path), WamPolicy(pupil, steps=1)
    for number in range(3):
        now = [seen(number), seen(10 + number)]
        np.testing.assert_allclose(exported.act(now), plain.act(now), atol=1e-4)
    alone = Past(2)
    assert torch.from_numpy(alone.extend(np.ones((1, 2, 1, 4, 4, 3), np.uint8))).shape[2] == 2
