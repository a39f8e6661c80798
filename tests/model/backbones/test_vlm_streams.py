"""A vision-language model as the observation's stream: what it reads, who reads it, and what is trained, saved and opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.model.conftest import make_batch
from wam.contracts import Batch, WamError
from wam.model.backbones.config import BackboneConfig, LoraConfig
from wam.model.config import ConditionalConfig, ModelConfig, StreamConfig
from wam.model.pretrained import from_pretrained, save_pretrained
from wam.model.wam import WorldActionModel
from wam.training.objective import joint_losses

EACH = ("smolvlm2-256m", "paligemma-3b")
each_kind = pytest.mark.parametrize("name", EACH)


def vlm_config(name: str = EACH[0], *, future: bool = False, **changes: object) -> ModelConfig:
    """A tiny model whose observation is a tiny vision-language model, with a native future if asked."""
    streams = {
        "observation": StreamConfig(kind="video", tokens=24, backbone=BackboneConfig(name=name, weights="tiny")),
        "state": StreamConfig(kind="vector"),
        "action": StreamConfig(kind="chunk", predicts="velocity", width=24, registers=2),
    }
    rows = [ConditionalConfig(name="policy", weight=1.0, clocks={"action": "draw", "future": "dropped"})]
    if future:
        streams["future"] = StreamConfig(kind="video", predicts="x0", tubelet=2, grid=4, stem_width=8, join_views=True)
        rows.append(ConditionalConfig(name="joint", weight=1.0, clocks={"action": "draw", "future": "draw"}))
    else:
        rows[0].clocks = {"action": "draw"}
    fields = {
        "width": 32,
        "depth": 2,
        "heads": 2,
        "head_dim": 16,
        "image_size": 16,
        "visibility": "first-frame",
        "streams": streams,
        "conditionals": rows,
        "text_dropout": 0.0,
        **changes,
    }
    return ModelConfig(**fields)  # type: ignore[arg-type]


def vlm_model(name: str = EACH[0], **changes: object) -> WorldActionModel:
    return woken(vlm_config(name, **changes))  # type: ignore[arg-type]


def woken(config: ModelConfig) -> WorldActionModel:
    """A model whose parts that start at zero carry something."""
    torch.manual_seed(0)
    model = WorldActionModel(config)
    for parameter in model.parameters():
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def act(model: WorldActionModel, batch: Batch) -> torch.Tensor:
    action = model.policy(batch, steps=2, same_noise=True).action
    assert action is not None
    return action


@each_kind
def test_actions_follow_what_is_seen_and_what_is_asked(name: str) -> None:
    model, batch = vlm_model(name), make_batch()
    right = act(model, batch)
    assert right.shape == (3, 8, 4)
    assert (act(model, batch.replace(images=batch.images.flip(0))) - right).abs().max() > 1e-4
    assert (act(model, batch.replace(instruction=("close it",) * 3)) - right).abs()[0].max() > 1e-4


@each_kind
def test_a_row_acts_as_it_would_alone_whatever_the_other_sentences_lengths(name: str) -> None:
    model, batch = vlm_model(name), make_batch().replace(instruction=("a", "a very long sentence", "some words"))
    together = act(model, batch)
    for row in range(3):
        torch.testing.assert_close(act(model, batch[[row]])[0], together[row], atol=1e-5, rtol=1e-5)


def test_a_camera_that_is_missing_is_seen_by_nobody() -> None:
    model, batch = vlm_model(), make_batch()
    first = act(model, batch.replace(view_mask=torch.tensor([[True, False]] * 3)))
    images = batch.images.clone()
    images[:, 1] = 255 - images[:, 1]
    other = batch.replace(images=images)
    torch.testing.assert_close(act(model, other.replace(view_mask=torch.tensor([[True, False]] * 3))), first)
    assert (act(model, other) - act(model, batch)).abs().max() > 1e-5


def test_cached_equals_uncached_and_several_frames_are_pictures_in_order() -> None:
    model = vlm_model(history=2)
    batch = make_batch(history=2)
    right = act(model, batch)
    torch.testing.assert_close(
        model.policy(batch, steps=2, same_noise=True, cached=False).action, right, atol=1e-5, rtol=1e-5
    )
    assert (act(model, batch.replace(images=batch.images.flip(2))) - right).abs().max() > 1e-4


def test_a_future_is_drawn_beside_it() -> None:
    model, batch = vlm_model(future=True), make_batch()
    losses = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))
    losses["loss"].backward()
    assert {"action", "future"} <= {name.removesuffix("_alone") for name in losses}
    joint = model.joint(batch, steps=2)
    assert joint.future is not None
    assert joint.future.shape == batch.future.shape  # type: ignore[union-attr]
    assert not model.network.extendable


def gradients(model: WorldActionModel) -> dict[str, bool]:
    joint_losses(model.train(), make_batch(), generator=torch.Generator().manual_seed(0))["loss"].backward()
    return {name: p.grad is not None and bool(p.grad.abs().sum() > 0) for name, p in model.named_parameters()}


OWN = ("network.videos.observation.pretrained.", "network.transformer.experts.observation.")


@each_kind
def test_training_it_whole_frozen_or_by_adapters(name: str) -> None:
    whole = gradients(vlm_model(name))
    unused = (
        "lm_head",
        "language_model.norm",
        "text_model.norm",
        "experts.observation.1",
    )  # after the last keys and values
    assert all(moved for n, moved in whole.items() if n.startswith(OWN) and not any(u in n for u in unused))
    config = vlm_config(name)
    config.streams["observation"].backbone.frozen = True  # type: ignore[union-attr]
    frozen = gradients(woken(config))
    assert not any(moved for n, moved in frozen.items() if n.startswith(OWN))
    assert any(frozen.values())
    pytest.importorskip("peft")
    config.streams["observation"].lora = LoraConfig(rank=2)
    adapted = gradients(woken(config))
    moved = {n for n, m in adapted.items() if m and n.startswith(OWN)}
    assert moved
    assert all(".lora_" in n for n in moved)
    assert {n.split(".")[-4] for n in moved} <= {"q_proj", "k_proj", "v_proj", "o_proj"}


@each_kind
def test_saved_and_opened_it_acts_the_same(name: str, tmp_path: Path) -> None:
    model, batch = vlm_model(name), make_batch()
    save_pretrained(model, tmp_path / "model")
    opened = from_pretrained(tmp_path / "model")
    assert opened.provenance["parts"]["backbones"]["observation"]["random"]
    torch.testing.assert_close(act(opened, batch), act(model, batch), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"depth": 3}, r"set model\.depth=2"),
        ({"visibility": "mutual"}, "observation that reads itself alone"),
    ],
)
def test_a_model_that_it_does_not_fit_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(WamError, match=sentence):
        WorldActionModel(vlm_config(**change))  # type: ignore[arg-type]


def test_it_is_no_future() -> None:
    config = vlm_config(future=True)
    config.streams["future"].backbone = BackboneConfig(name=EACH[0], weights="tiny")
    with pytest.raises(WamError, match="for the observation stream"):
        WorldActionModel(config)
