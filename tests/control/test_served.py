"""Whatever was trained can be served: a world-action model, a cloning policy, a student and its export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")

from tests.model.conftest import make_model
from wam.contracts import WamError
from wam.control.policy import Policy
from wam.control.server.config import PolicyOptions
from wam.control.server.served import Served, load_served
from wam.model.cloning import CloningConfig, CloningPolicy
from wam.model.pretrained import save_pretrained

CAMERAS = ("side", "top")


def acts(served: Served) -> bool:
    """Whether it answers what a server would ask it: observations of any slots."""
    chunk = served.policy.act([served.example()] * 2, [3, 1])
    assert isinstance(served.policy, Policy)
    return chunk.shape == (2, served.policy.chunk, served.action_dim) and bool(np.isfinite(chunk).all())


def test_a_world_action_model(tmp_path: Path) -> None:
    save_pretrained(make_model(), tmp_path, cameras=CAMERAS)
    served = load_served(tmp_path, PolicyOptions(steps=1))
    assert (served.cameras, served.image_size, served.state_dim) == (CAMERAS, 16, 4)
    assert len(served.sha256) == 64
    assert not served.random
    assert acts(served)


def test_a_cloning_policy_whose_run_says_its_pictures_size(tmp_path: Path) -> None:
    policy = CloningPolicy(CloningConfig())
    told = {"config": {"model": {"image_size": 16}}}
    policy.save_pretrained(tmp_path / "a", tensors=policy.state_dict(), cameras=CAMERAS, provenance=told)
    served = load_served(tmp_path / "a", PolicyOptions())
    assert served.image_size == 16
    assert acts(served)
    policy.save_pretrained(tmp_path / "b", tensors=policy.state_dict(), cameras=CAMERAS, provenance={})
    with pytest.raises(WamError, match="image_size="):
        load_served(tmp_path / "b", PolicyOptions())
    assert load_served(tmp_path / "b", PolicyOptions(), image_size=32).image_size == 32


def test_a_student_and_its_export(tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    from tests.control.test_export import student
    from wam.control.export import export_student

    pupil = student(history=2)
    pupil.provenance = {"random": False}
    export_student(pupil, tmp_path)
    served = load_served(tmp_path, PolicyOptions())
    assert (served.cameras, served.image_size, served.random) == (CAMERAS, 16, False)
    assert acts(served)
    with pytest.raises(WamError, match="export it with them"):
        load_served(tmp_path, PolicyOptions(steps=2))


def test_a_model_that_names_no_cameras_is_refused(tmp_path: Path) -> None:
    save_pretrained(make_model(), tmp_path)
    with pytest.raises(WamError, match="name its cameras"):
        load_served(tmp_path, PolicyOptions())
