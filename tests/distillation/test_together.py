"""From a teacher to what it gains a student, by the verbs' own functions: calibrated on held-out frames, driven, and served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.distillation.conftest import Square, distill_config
from wam.contracts import WamError
from wam.control.doubt import Calibration
from wam.control.server.config import PairingOptions, PolicyOptions, RoutingOptions
from wam.control.wam_policy import load_policy
from wam.distillation.stage import distill
from wam.evaluation import pairing, routing
from wam.evaluation.evaluate import held_out_datasets
from wam.evaluation.pairing import PairingEvaluateConfig
from wam.evaluation.routing import RoutingEvaluateConfig
from wam.model.thought import ThoughtConfig
from wam.settings import load_settings
from wam.training.config import TrainConfig


class Named(Square):
    name = "toy"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen_by(checkpoint: Path) -> object:
        return lambda name, max_steps: Named(name, cameras=("a", "b"), image_size=16, max_steps=max_steps)

    for module in (pairing, routing):
        monkeypatch.setattr(module, "seen_by", seen_by)
    monkeypatch.setattr("wam.evaluation.together.sentences_for", lambda names, held_out: {})


@pytest.fixture(scope="module")
def student(toy: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a student that is handed thoughts."""
    config = distill_config(toy, teacher, tmp_path_factory.mktemp("student"), "teacher_actions")
    config.student.thought = ThoughtConfig(kind="context", max_age=4)
    config.train.data.held_out = 0.5
    distill(config)
    return Path(config.train.output)


def test_it_is_routed_by_the_share_that_was_calibrated(student: Path, tmp_path: Path, world: None) -> None:
    config = RoutingEvaluateConfig(
        environments=["toy"], doubts=["error", "change"], shares=[0.0, 0.5, 1.0], starts=3, execute=2, max_steps=8
    )
    config.output = str(tmp_path)
    found = routing.evaluate(student, config, say=lambda _: None)
    for doubt in config.doubts:
        assert found.values[f"routed_{doubt}_0"] == 0
        assert found.values[f"routed_{doubt}_1"] == 1
        assert 0 < found.values[f"routed_{doubt}_0.5"] < 1 or doubt == "error"
        assert found.values[f"success_{doubt}_0"] == found.values["success_student"]
        assert found.values[f"success_{doubt}_1"] == found.values["success_teacher"]
        assert -1 <= found.values[f"doubt_rank_{doubt}"] <= 1
        how = Calibration.load(tmp_path / f"calibration-{doubt}.json")
        assert len(how.scores) == found.counts[f"doubt_rank_{doubt}"] > 0
        assert how.threshold(0.5) < how.threshold(0.1)
    frames = sum(
        -(-episode.length // 2)
        for dataset in held_out_datasets(load_settings(TrainConfig, student / "config.yaml"), play=False)
        for episode in dataset.episodes
    )
    assert found.counts["doubt_rank_change"] == frames
    assert routing.evaluate(student, config, say=lambda _: None).values == found.values
    episode = json.loads((tmp_path / "change_0.5.jsonl").read_text().splitlines()[1])
    assert sum(episode["tally"].values()) == episode["chunks"]


def test_it_is_measured_with_thoughts_of_several_delays(student: Path, tmp_path: Path, world: None) -> None:
    config = PairingEvaluateConfig(
        environments=["toy"], starts=2, execute=2, max_steps=8, hz=5.0, delays_ms=[0.0, 400.0], controls={}
    )
    config.output = str(tmp_path)
    found = pairing.evaluate(student, config, say=lambda _: None).values
    assert found["thought_fresh_0ms"] == 1
    assert found["thought_absent_400ms"] > 0
    for delay in (0, 400):
        shares = [found[f"thought_{what}_{delay}ms"] for what in ("fresh", "stale", "absent")]
        assert sum(shares) == pytest.approx(1)
    assert {"success_teacher", "success_alone", "success_paired_0ms"} <= set(found)


def test_both_are_served(student: Path, tmp_path: Path) -> None:
    pytest.importorskip("websockets")
    pytest.importorskip("prometheus_client")
    from wam.control.server.served import load_served
    from wam.training.state import newest_checkpoint

    checkpoint = newest_checkpoint(student)
    small = load_policy(checkpoint, steps=1)
    from wam.control.routing import large_policy
    from wam.files import sha256

    large = large_policy(checkpoint, small)
    config = RoutingEvaluateConfig(execute=2)
    data = routing.Demonstrations.of(student, config)
    how, _, _ = routing.calibrate(
        "change", small, large, data, config, student=sha256(checkpoint / "model.safetensors")
    )
    how.save(tmp_path / "calibration.json")
    routed = RoutingOptions(calibration=str(tmp_path / "calibration.json"), share=0.5)
    for options, tally in (
        (PolicyOptions(steps=1, pairing=PairingOptions(hz=5.0)), {"fresh", "stale", "absent"}),
        (PolicyOptions(steps=1, routing=routed), {"small", "large"}),
    ):
        served = load_served(checkpoint, options)
        chunk = served.policy.act([served.example()] * 2, [3, 1])
        assert chunk.shape == (2, served.policy.chunk, served.action_dim)
        assert np.isfinite(chunk).all()
        assert set(served.policy.tally) == tally  # type: ignore[attr-defined]
        assert sum(served.policy.tally.values()) == 2  # type: ignore[attr-defined]
    with pytest.raises(WamError, match="both"):
        load_served(checkpoint, PolicyOptions(pairing=PairingOptions(hz=5.0), routing=routed))
