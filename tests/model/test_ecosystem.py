"""A saved model opens as a pipeline of diffusers and by transformers' AutoModel, and draws there what it draws here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from transformers import AutoConfig, AutoModel

from tests.model.conftest import make_model
from wam.contracts import Batch, WamError
from wam.model.auto import CONDITIONALS, WamConfig, WamModel
from wam.model.config import ModelConfig
from wam.model.hub_index import CONFIG, INDEX
from wam.model.pipeline import WamPipeline, laid_out
from wam.model.pretrained import from_pretrained, save_pretrained
from wam.model.wam import WorldActionModel
from wam.settings import build


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_pretrained(make_model(), folder, cameras=("side", "top"), provenance={"random": True})
    return folder


@pytest.fixture(scope="module")
def own(saved: Path) -> WorldActionModel:
    return from_pretrained(saved)


@pytest.fixture
def pipe(saved: Path) -> WamPipeline:
    made = WamPipeline.from_pretrained(saved)
    made.set_progress_bar_config(disable=True)
    return made


def same(pipe: WamPipeline, own: WorldActionModel, batch: Batch, conditional: str, **options: Any) -> None:
    found = pipe(batch, conditional=conditional, num_inference_steps=3, seed=2, output_type="pt", **options)
    wanted = getattr(own, conditional)(batch, steps=3, seed=2)
    for drawn, true in ((found.frames, wanted.future), (found.actions, wanted.action)):
        assert (drawn is None) == (true is None)
        if true is not None:
            torch.testing.assert_close(drawn, true, atol=1e-5, rtol=1e-4)


class TestPipeline:
    @pytest.mark.parametrize("conditional", CONDITIONALS)
    def test_it_draws_what_the_model_draws(
        self, conditional: str, pipe: WamPipeline, own: WorldActionModel, batch: Batch
    ) -> None:
        same(pipe, own, batch, conditional)

    def test_arrays_in_arrays_out(self, pipe: WamPipeline, own: WorldActionModel, batch: Batch) -> None:
        assert batch.state is not None
        found = pipe(batch.images.numpy(), "open the faucet", state=batch.state.numpy(), num_inference_steps=2)
        told = Batch(images=batch.images, state=batch.state, instruction=("open the faucet",) * batch.size)
        assert isinstance(found.actions, np.ndarray)
        np.testing.assert_allclose(found.actions, own.policy(told, steps=2).action, atol=1e-5, rtol=1e-4)
        assert found.frames is None

    def test_a_callback_sees_every_step_and_may_change_the_signals(self, pipe: WamPipeline, batch: Batch) -> None:
        steps: list[tuple[int, float, list[str]]] = []

        def note(
            pipe: Any, step: int, clock: torch.Tensor, signals: dict[str, torch.Tensor]
        ) -> dict[str, torch.Tensor]:
            steps.append((step, float(clock), sorted(signals)))
            return {"action": torch.zeros_like(signals["action"])} if step == 2 else {}

        found = pipe(batch, conditional="joint", num_inference_steps=3, callback_on_step_end=note, output_type="pt")
        assert [number for number, _, _ in steps] == [0, 1, 2]
        assert [names for _, _, names in steps] == [["action", "future"]] * 3
        clocks = [clock for _, clock, _ in steps]
        assert clocks[0] == pytest.approx(1.0)
        assert clocks == sorted(clocks, reverse=True)
        middle = pipe.model.model.normalizer("action").restore(torch.zeros_like(found.actions))
        torch.testing.assert_close(found.actions, middle)

    def test_a_callback_may_ask_for_some_of_the_signals(self, pipe: WamPipeline, batch: Batch) -> None:
        seen: list[list[str]] = []
        pipe(
            batch,
            conditional="joint",
            num_inference_steps=1,
            callback_on_step_end=lambda _, __, ___, signals: seen.append(list(signals)),
            callback_on_step_end_tensor_inputs=["action"],
        )
        assert seen == [["action"]]

    @pytest.mark.parametrize(
        "scheduler",
        [
            FlowMatchHeunDiscreteScheduler(),
            FlowMatchEulerDiscreteScheduler(shift=3.0),
            UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
        ],
        ids=lambda scheduler: type(scheduler).__name__,
    )
    def test_another_scheduler_draws_otherwise_and_ends_near(
        self, scheduler: Any, pipe: WamPipeline, own: WorldActionModel, batch: Batch
    ) -> None:
        """In many steps every solver comes to the same place."""
        pipe.scheduler = scheduler
        few, many = (pipe(batch, num_inference_steps=n, seed=2, output_type="pt").actions for n in (3, 60))
        assert not torch.allclose(few, own.policy(batch, steps=3, seed=2).action, atol=1e-4)  # type: ignore[arg-type]
        end = own.policy(batch, steps=60, seed=2).action
        assert end is not None
        start = own.policy(batch, steps=1, seed=2).action
        assert start is not None
        assert (many - end).abs().mean() < 0.25 * (start - end).abs().mean()

    def test_a_scheduler_that_is_no_flow_is_refused(self, pipe: WamPipeline, batch: Batch) -> None:
        pipe.scheduler = DDIMScheduler()
        with pytest.raises(WamError, match="a flow-matching scheduler"):
            pipe(batch)

    def test_a_shift_of_ones_own_is_kept(self) -> None:
        cpu = torch.device("cpu")
        own = laid_out(FlowMatchEulerDiscreteScheduler(shift=3.0), 4, shift=5.0, device=cpu)
        streams = laid_out(FlowMatchEulerDiscreteScheduler(), 4, shift=5.0, device=cpu)
        assert (own.config.shift, streams.config.shift) == (3.0, 5.0)

    def test_saved_as_a_pipeline_it_opens_again(
        self, pipe: WamPipeline, own: WorldActionModel, batch: Batch, tmp_path: Path
    ) -> None:
        pipe.save_pretrained(tmp_path)
        again = WamPipeline.from_pretrained(tmp_path)
        again.set_progress_bar_config(disable=True)
        same(again, own, batch, "policy")
        assert again.model.model.cameras == ("side", "top")

    def test_a_checkpoint_of_before_opens_too(
        self, saved: Path, own: WorldActionModel, batch: Batch, tmp_path: Path
    ) -> None:
        for file in saved.iterdir():
            if file.is_file() and file.name not in (CONFIG, INDEX):
                (tmp_path / file.name).write_bytes(file.read_bytes())
        old = WamPipeline.from_pretrained(tmp_path)
        old.set_progress_bar_config(disable=True)
        same(old, own, batch, "policy")
        assert torch.equal(from_pretrained(tmp_path).policy(batch).action, own.policy(batch).action)  # type: ignore[arg-type]


class TestTransformers:
    def test_auto_model_gives_the_same_network(self, saved: Path, own: WorldActionModel, batch: Batch) -> None:
        model = AutoModel.from_pretrained(saved)
        assert isinstance(model, WamModel)
        assert not model.training
        for conditional in CONDITIONALS:
            one, two = model(batch, conditional=conditional, steps=2), getattr(own, conditional)(batch, steps=2)
            for name in ("future", "action"):
                if getattr(two, name) is not None:
                    assert torch.equal(getattr(one, name), getattr(two, name))

    def test_auto_config_says_what_the_checkpoint_says(self, saved: Path) -> None:
        config = AutoConfig.from_pretrained(saved)
        assert isinstance(config, WamConfig)
        own = yaml.safe_load((saved / "config.yaml").read_text())["model"]
        assert build(ModelConfig, config.model) == build(ModelConfig, own)

    def test_a_flipped_byte_is_found_this_way_too(self, saved: Path, tmp_path: Path) -> None:
        for file in saved.iterdir():
            if file.is_file():
                (tmp_path / file.name).write_bytes(file.read_bytes())
        weights = bytearray((tmp_path / "model.safetensors").read_bytes())
        weights[-5] ^= 1
        (tmp_path / "model.safetensors").write_bytes(weights)
        with pytest.raises(WamError, match="sha256"):
            AutoModel.from_pretrained(tmp_path)

    def test_what_the_loader_does_not_do_is_refused(self, saved: Path) -> None:
        with pytest.raises(WamError, match="device_map"):
            WamModel.from_pretrained(saved, device_map="auto")
        with pytest.raises(WamError, match="the world-action model"):
            WamModel.from_pretrained("nobody/has-this-model")

    def test_weights_may_be_opened_in_half(self, saved: Path) -> None:
        assert WamModel.from_pretrained(saved, dtype=torch.bfloat16).dtype == torch.bfloat16

    def test_the_index_names_what_there_is(self, saved: Path) -> None:
        index = json.loads((saved / INDEX).read_text())
        for library, kind in (index["model"], index["scheduler"]):
            assert hasattr(__import__(library, fromlist=[kind]), kind)
