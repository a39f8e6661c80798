"""The YAML files that users start from: every one loads, the demo's parts agree, each method of the zoo is what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wam.cli.demo import DemoConfig
from wam.control.limits import GuardLimits
from wam.control.server.config import ServeConfig
from wam.data.curation.config import CurateConfig
from wam.diffusion.clocks import draw_clock
from wam.distillation.config import DistillConfig
from wam.evaluation.delay import DelayEvaluateConfig
from wam.evaluation.evaluate import EvaluateConfig
from wam.evaluation.guidance import GuidanceEvaluateConfig
from wam.evaluation.latent_action.config import LatentActionEvaluateConfig
from wam.evaluation.pairing import PairingEvaluateConfig
from wam.evaluation.routing import RoutingEvaluateConfig
from wam.evaluation.student import StudentEvaluateConfig
from wam.model.config import ModelConfig
from wam.model.synthetic import synthetic_batch
from wam.model.visibility import VisibilityTable, table_from
from wam.model.wam import WorldActionModel
from wam.settings import load_settings, to_plain
from wam.simulation.config import CollectConfig
from wam.training.config import TrainConfig
from wam.training.objective import joint_losses

CONFIGS = Path(__file__).parent.parent / "configs"
ZOO = sorted((CONFIGS / "zoo").glob("*.yaml"))


def zoo(name: str) -> ModelConfig:
    return load_settings(TrainConfig, CONFIGS / "zoo" / f"{name}.yaml").model


def table(name: str) -> VisibilityTable:
    return table_from(zoo(name).visibility)


def shrunk(config: ModelConfig) -> ModelConfig:
    """The same tables at a size for tests."""
    for stream in config.streams.values():
        stream.grid, stream.stem_width = 4, 8
    return replace(config, width=32, depth=1, heads=2, head_dim=16, image_size=16)


class TestTheDemoInParts:
    """configs/quickstart.yaml holds the whole demo; each verb's own file says the same."""

    def test_collect(self) -> None:
        whole = load_settings(DemoConfig, CONFIGS / "quickstart.yaml").collect
        assert load_settings(CollectConfig, CONFIGS / "data" / "demo.yaml") == whole

    def test_evaluate(self) -> None:
        whole = load_settings(DemoConfig, CONFIGS / "quickstart.yaml").evaluate
        assert load_settings(EvaluateConfig, CONFIGS / "eval" / "demo.yaml") == whole

    def test_train(self) -> None:
        demo = load_settings(DemoConfig, CONFIGS / "quickstart.yaml")
        alone = load_settings(TrainConfig, CONFIGS / "train" / "quickstart.yaml")
        assert [part.play_share for part in alone.data.parts] == [demo.play_share]
        # the demo sets these for its own run
        alone.output, alone.data.parts, alone.minutes = demo.train.output, demo.train.data.parts, demo.train.minutes
        demo.train.model.occupancy = alone.model.occupancy  # for which `wam data label` comes first
        assert to_plain(alone) == to_plain(demo.train)

    def test_student(self) -> None:
        demo = load_settings(DemoConfig, CONFIGS / "quickstart.yaml")
        alone = load_settings(DistillConfig, CONFIGS / "distill" / "demo.yaml")
        assert [part.play_share for part in alone.train.data.parts] == [demo.play_share]
        alone.teacher = demo.distill.teacher
        alone.train.output, alone.train.minutes = demo.distill.train.output, demo.distill.train.minutes
        alone.train.data.parts = demo.distill.train.data.parts
        assert to_plain(alone) == to_plain(demo.distill)
        together = load_settings(StudentEvaluateConfig, CONFIGS / "eval" / "student.yaml")
        assert together.environments == demo.student.environments == demo.evaluate.environments


KINDS = {
    "control": GuardLimits,
    "data": CollectConfig,
    "distill": DistillConfig,
    "eval": EvaluateConfig,
    "serve": ServeConfig,
    "train": TrainConfig,
    "zoo": TrainConfig,
}
OWN = {
    "data/curate": CurateConfig,
    "data/latent-action-human": CurateConfig,
    "eval/delay": DelayEvaluateConfig,
    "eval/latent-action": LatentActionEvaluateConfig,
    "eval/latent-action-human": LatentActionEvaluateConfig,
    "eval/pairing": PairingEvaluateConfig,
    "eval/routing": RoutingEvaluateConfig,
    "eval/student": StudentEvaluateConfig,
    "eval/guidance": GuidanceEvaluateConfig,
}


@pytest.mark.parametrize(
    "path",
    sorted(p for kind in KINDS for p in (CONFIGS / kind).glob("*.yaml")),
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_every_file_loads_as_what_its_folder_says(path: Path) -> None:
    load_settings(OWN.get(f"{path.parent.name}/{path.stem}", KINDS[path.parent.name]), path)


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
class TestEveryMethodOfTheZoo:
    def test_it_loads_and_a_small_model_of_it_trains(self, path: Path) -> None:
        config = load_settings(TrainConfig, path)
        config.validate()
        torch.manual_seed(0)
        model = WorldActionModel(shrunk(config.model))
        losses = joint_losses(model, synthetic_batch(model.config, 2), generator=torch.Generator().manual_seed(0))
        losses["loss"].backward()
        assert torch.isfinite(losses["loss"])
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())

    def test_it_names_its_source_and_what_differs_and_writes_to_its_own_folder(self, path: Path) -> None:
        if path.stem == "base":
            pytest.skip("the base is no method")
        first, second = path.read_text().splitlines()[:2]
        assert first.startswith("# Source: ")
        assert second.startswith("# Differs")
        assert load_settings(TrainConfig, path).output == f"runs/zoo/{path.stem}"


def test_the_base_of_the_zoo_is_the_default_model() -> None:
    quickstart = load_settings(TrainConfig, CONFIGS / "train" / "quickstart.yaml")
    base = load_settings(TrainConfig, CONFIGS / "zoo" / "base.yaml")
    assert to_plain(base) == to_plain(quickstart), "copy the changed default into configs/zoo/base.yaml"


@pytest.mark.parametrize("name", ["fast-wam", "pi05-ki", "robomm"])
def test_their_action_never_reads_the_future(name: str) -> None:
    assert not table(name).reaches("future", "action")
    assert table("base").reaches("future", "action")


def test_insulation_sends_no_gradient_of_the_action_back() -> None:
    assert dict(table("pi05-ki").sources("action", ("text", "observation", "state", "action"))) == {
        "text": True,
        "observation": True,
        "state": True,
        "action": False,
    }


def test_the_controls_lack_the_edges_they_are_named_for() -> None:
    present = list(zoo("base").streams)
    assert "action" in table("base").modulators("future", present)
    assert "action" not in table("attention-only").modulators("future", present)
    assert table("attention-only").reaches("action", "future", present)
    assert not table("action-blind").reaches("action", "future", present)


def test_decoupled_clocks_keep_the_future_at_high_noise() -> None:
    config = zoo("dreamzero")
    future, action = (
        draw_clock(4000, config.streams[s].clock, generator=torch.Generator().manual_seed(0)).mean()
        for s in ("future", "action")
    )
    assert future == pytest.approx(7 / 8, abs=0.01)
    assert action == pytest.approx(1 / 2, abs=0.02)


def test_causal_methods_look_back_over_frames() -> None:
    for name in ("dreamzero", "lingbot-va"):
        assert set(table(name).causal) == {"observation", "future"}
        assert zoo(name).history > 1


def test_a_policy_without_a_future_has_none() -> None:
    assert "future" not in zoo("pi0").streams


class TestDistillation:
    @pytest.mark.parametrize("path", sorted((CONFIGS / "distill").glob("*.yaml")), ids=lambda path: path.stem)
    def test_what_a_file_asks_for_can_be_done(self, path: Path) -> None:
        load_settings(DistillConfig, path).validate()

    def test_the_control_differs_from_what_it_stands_beside_in_its_losses_and_its_play_alone(self) -> None:
        taught, cloned = (load_settings(DistillConfig, CONFIGS / "distill" / f"{n}.yaml") for n in ("demo", "cloned"))
        assert cloned.active == {"demonstrations": 1.0}
        cloned.losses, cloned.train.output = taught.losses, taught.train.output
        assert cloned.train.data.parts[0].play_share == 0.0
        cloned.train.data.parts[0].play_share = taught.train.data.parts[0].play_share
        assert to_plain(cloned) == to_plain(taught)

    def test_a_loss_is_left_out_by_an_override(self) -> None:
        path = CONFIGS / "distill" / "demo.yaml"
        for override in ("losses.features=null", "losses.features=0"):
            assert "features" not in load_settings(DistillConfig, path, [override]).active
