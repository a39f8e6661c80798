"""The demo: its plan of its time, and the whole of it at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wam.cli.demo import LEAST, REST, DemoConfig, run_demo, training_minutes
from wam.distillation.config import DistillConfig
from wam.evaluation.evaluate import EvaluateConfig
from wam.evaluation.student import StudentEvaluateConfig
from wam.model.config import ModelConfig
from wam.model.student import StudentConfig
from wam.simulation.config import CollectConfig
from wam.training.config import TrainConfig


def test_training_fills_what_the_simulator_leaves() -> None:
    assert training_minutes(12.0, collected=2.0) == pytest.approx(10.0 - 2.0 * REST)
    assert training_minutes(12.0, collected=2.1) < training_minutes(12.0, collected=2.0)


def test_a_slow_simulator_leaves_the_least() -> None:
    assert training_minutes(10.0, collected=20.0) == LEAST


def test_the_whole_chain_runs_small_and_its_report_has_every_part(tmp_path: Path) -> None:
    pair = [f"metaworld/faucet-{way}-v3" for way in ("open", "close")]
    collect = CollectConfig(
        environments=tuple(pair), episodes=2, play_episodes=2, play_steps=24, image_size=32, processes=1
    )
    model = ModelConfig(width=32, depth=1, heads=2, head_dim=16, image_size=32)
    for stream in model.streams.values():
        stream.grid, stream.stem_width = 4, 8
    model.occupancy.loss_weight, model.occupancy.width = 1.0, 16
    train = TrainConfig(steps=2, batch_size=8, threads=1, check_every=0, tracker="none", model=model)
    train.data.held_out = 0.5
    evaluate = EvaluateConfig(environments=pair, pairs=[pair], starts=1, max_steps=6, windows=8, gate_steps=[1])
    distill, student = DistillConfig(), StudentEvaluateConfig(environments=pair, starts=1, served=1, max_steps=6)
    distill.student = StudentConfig(size=0.5, chunk=8)
    distill.train = TrainConfig(steps=2, batch_size=8, threads=1, check_every=0, tracker="none")
    distill.train.data.held_out = 0.5
    config = DemoConfig(
        collect=collect,
        train=train,
        evaluate=evaluate,
        latent_action="",
        distill=distill,
        student=student,
        student_minutes=0.1,
    )
    assert run_demo(config, tmp_path) == 1  # two steps teach nothing, and the gates say so
    figures = json.loads((tmp_path / "summary.json").read_text())["figures"]
    assert {"wall_minutes", "success_mean", "success_worst", "action_sensitivity", "wrong_text_success"} <= set(figures)
    voxels = json.loads((tmp_path / "evaluation" / "occupancy" / "summary.json").read_text())["figures"]
    assert {"iou_present", "future_gain"} <= set(voxels)
    taught = json.loads((tmp_path / "evaluation" / "student" / "summary.json").read_text())["figures"]
    assert {"retained", "success_served", "chunk_ms_served", "chunk_ms_teacher_direct"} <= set(taught)
    page = (tmp_path / "report.html").read_text()
    for part in (
        "Is it a world model?",
        "What if?",
        "What is where, in three dimensions",
        "Where it fails",
        "A student for",
    ):
        assert part in page
    assert "failed" in page
