"""A pretrained network as the future stream: beside native experts, split between streams, and alone as the original."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from einops import rearrange

from tests.model.backbones.tools import EACH, LinearVae, tiny_config, tiny_model, vae_of
from wam.contracts import WamError
from wam.model.backbones.assembly import take_apart
from wam.model.backbones.config import BackboneConfig
from wam.model.backbones.interface import Ends, Prompt
from wam.model.backbones.load import load_backbone
from wam.model.backbones.parity import Example, draw_example, original_forward
from wam.model.config import ModelConfig, StreamConfig
from wam.model.joint import JointTransformer, StreamInput
from wam.model.reference import dense_forward
from wam.model.rollout import rollout
from wam.model.synthetic import synthetic_batch
from wam.model.visibility import VisibilityTable, table_from
from wam.model.wam import WorldActionModel
from wam.settings import load_settings
from wam.tokenizers.text import TextConfig
from wam.training.config import TrainConfig

each_kind = pytest.mark.parametrize("name", EACH)
CONFIGS = Path(__file__).parents[3] / "configs"
WAN, GUIDED = "wan2.1-t2v-1.3b", "wan2.1-i2v-14b"
ALONE = {"extends": "joint", "sees": {"future": {"future": "yes"}}}
"""A future that reads no other stream; what modulates it starts as nothing."""


def future_clock(config: ModelConfig, size: int, *, per_frame: bool = False) -> torch.Tensor:
    times = len(config.future) // 2
    clock = torch.linspace(0.2, 0.9, size)
    return clock[:, None] * torch.linspace(0.5, 1, times) if per_frame else clock


@each_kind
@torch.no_grad()
def test_an_untrained_model_draws_what_the_original_draws(name: str) -> None:
    """Through the whole network: views side by side, the present first and clean, its own text, zero steering."""
    torch.manual_seed(0)
    backbone = load_backbone(name, "tiny")
    original = copy.deepcopy(backbone)
    config = tiny_config(name, visibility=ALONE)
    model = WorldActionModel(config, video=vae_of(config), backbones={"future": backbone}).eval()
    batch = synthetic_batch(config, 3)
    network = model.network
    context = network.context(model.normalized(batch))
    signal = torch.randn(model.signal_shape("future", 3))
    for per_frame in (False, True):
        clock = future_clock(config, 3, per_frame=per_frame)
        signals = {"future": signal, "action": batch.action}
        found = network.denoise(context, signals, {"future": clock, "action": torch.zeros(3)})["future"]  # type: ignore[dict-item]
        features, mask = network.stems["text"].encoder(batch.instruction)  # type: ignore[operator,union-attr]
        whole = rearrange(torch.cat([context.present, signal], dim=2), "b v t h w c -> b c t h (v w)")
        clocks = clock if per_frame else clock[:, None].expand(-1, signal.shape[2])
        example = Example(
            latents=whole,
            clocks=torch.nn.functional.pad(clocks, (1, 0)),
            features=features,
            mask=mask,
            guide=context.prompts["future"].guide,
            picture=None if backbone.picture is None else picture_features(model, batch.images),
        )
        right = rearrange(original_forward(original, example)[:, :, 1:], "b c t h (v w) -> b v t h w c", v=2)
        torch.testing.assert_close(found, right, atol=1e-5, rtol=0)


def picture_features(model: WorldActionModel, images: torch.Tensor) -> torch.Tensor:
    beside = rearrange(images[:, :, -1].float() / 127.5 - 1, "b v h w c -> b h (v w) c")
    return model.network.videos["future"].picture(beside)  # type: ignore[operator,union-attr]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A tiny network whose first frame is in a stream of its own, and what the original predicts of the whole."""

    transformer: JointTransformer
    inputs: dict[str, StreamInput]
    original: torch.Tensor
    ends: Ends
    example: Example
    prompt: Prompt

    def predict(self, h: Mapping[str, torch.Tensor]) -> torch.Tensor:
        tokens = torch.cat([h["observation"], h["future"]], dim=1)
        told = self.ends.tell(self.example.clocks, self.prompt)
        return self.ends.predict(tokens, told, self.ends.grid(self.example.latents))


def split(name: str, *native: str) -> Split:
    """native: streams beside it, narrower."""
    torch.manual_seed(0)
    backbone = load_backbone(name, "tiny")
    known = backbone.description
    example = draw_example(known, size=2, shape=(3, 4, 4), per_frame=True)
    original = original_forward(backbone, example)
    ends, layers = take_apart(backbone)
    transformer = JointTransformer(
        widths=dict.fromkeys(native, 24),
        depth=known.layers,
        heads=known.heads,
        head_dim=known.head_dim,
        condition_width=20,
        mlp_ratios=dict.fromkeys(native, 2.0),
        pretrained={"future": layers},
        shared={"observation": "future"},
    )
    prompt = ends.read(example.features, example.mask)
    inputs = {}
    for s, frames, start in (("observation", slice(0, 1), 0), ("future", slice(1, 3), 1)):
        latents, clocks = example.latents[:, :, frames], example.clocks[:, frames]
        grid = ends.grid(latents)
        inputs[s] = StreamInput(
            h=ends.embed(latents, clocks, prompt),
            condition=ends.tell(clocks, prompt),
            rotary=ends.rotary(grid, start=start, device=latents.device),
            frames=grid[0],
        )
    g = torch.Generator().manual_seed(1)
    for s in native:
        tokens, condition = torch.randn(2, 5, 24, generator=g), torch.randn(2, 1, 20, generator=g)
        inputs[s] = StreamInput(h=tokens, condition=condition)
    return Split(transformer=transformer, inputs=inputs, original=original, ends=ends, example=example, prompt=prompt)


@pytest.mark.parametrize("name", [name for name in EACH if name != GUIDED])
@torch.no_grad()
def test_frames_split_between_two_streams_equal_the_original(name: str) -> None:
    """Attention joins the streams' keys, and each keeps its own clocks and places: the original, in two parts."""
    made = split(name)
    both = {"observation": "yes", "future": "yes"}
    h, _ = made.transformer(made.inputs, VisibilityTable(sees={"observation": both, "future": both}))
    torch.testing.assert_close(made.predict(h), made.original, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", ["joint", "first-frame", "causal", "insulated"])
@pytest.mark.parametrize("name", [name for name in EACH if name != GUIDED])
@torch.no_grad()
def test_beside_native_streams_it_equals_one_sequence_under_a_dense_mask(name: str, preset: str) -> None:
    made = split(name, "text", "state", "action")
    fast, _ = made.transformer(made.inputs, table_from(preset))
    slow = dense_forward(made.transformer, made.inputs, table_from(preset))
    for s in made.inputs:
        torch.testing.assert_close(fast[s], slow[s], atol=2e-5, rtol=1e-4)
    assert (made.predict(fast) - made.original).abs().max() > 1e-3, "the other streams are not read"


@pytest.mark.parametrize(("name", "shared"), [(name, False) for name in EACH] + [(WAN, True), ("ltx-video", True)])
def test_every_conditional_draws_and_cached_equals_uncached(name: str, shared: bool) -> None:
    model = tiny_model(name, shared=shared)
    batch = synthetic_batch(model.config, 2)
    for method in ("policy", "joint"):
        fast = getattr(model, method)(batch, steps=2)
        slow = getattr(model, method)(batch, steps=2, cached=False)
        assert torch.equal(fast.action, slow.action)
        if method == "joint":
            assert fast.future.shape == batch.future.shape  # type: ignore[union-attr]
            torch.testing.assert_close(fast.future, slow.future)
    for method in ("imagine", "forward_dynamics", "inverse_dynamics"):
        getattr(model, method)(batch, steps=1)


@pytest.mark.parametrize("shared", [False, True])
@torch.no_grad()
def test_what_modulates_the_future_reaches_it_once_its_steering_is_learned(shared: bool) -> None:
    sees = {"observation": "yes", "future": "yes"} if shared else {"future": "yes"}
    model = tiny_model(WAN, shared=shared, visibility={"extends": "joint", "sees": {"future": sees}})
    batch = synthetic_batch(model.config, 2)
    other = batch.replace(action=batch.action.flip(0))  # type: ignore[union-attr]
    assert torch.equal(model.forward_dynamics(batch).future, model.forward_dynamics(other).future)
    torch.nn.init.normal_(model.network.videos["future"].steer.weight, std=0.5)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(model.forward_dynamics(batch).future, model.forward_dynamics(other).future)


@pytest.mark.parametrize("shared", [False, True])
def test_it_is_let_run_chunk_by_chunk(shared: bool) -> None:
    """Frames that share the pretrained layers join no cache: the context is computed anew."""
    model = tiny_model(WAN, shared=shared, visibility="causal", history=2)
    assert model.network.extendable != shared
    batch = synthetic_batch(model.config, 2)
    frames = rollout(model, batch, chunks=2, steps=1)
    assert frames.shape == (2, 2, 8, 16, 16, 3)
    assert torch.isfinite(frames).all()


@torch.no_grad()
def test_the_policy_acts_through_the_pretrained_layers_where_the_observation_shares_them() -> None:
    for shared in (False, True):
        model = tiny_model(WAN, shared=shared)
        for parameter in model.network.heads.parameters():  # zero at the start
            torch.nn.init.normal_(parameter, std=0.1)
        batch = synthetic_batch(model.config, 2)
        before = model.policy(batch).action
        model.network.transformer.layers("future")[0].block.attn1.to_v.weight.mul_(2)
        assert torch.equal(model.policy(batch).action, before) != shared


def changed(**changes: object) -> WorldActionModel:
    """A model with settings of its config changed, by the path to each; None takes an entry out."""
    config = tiny_config(WAN)
    for path, value in changes.items():
        target: object = config
        *parts, last = path.split("__")
        for part in parts:
            target = target[part] if isinstance(target, dict) else getattr(target, part)
        if isinstance(target, dict):
            target.pop(last) if value is None else target.__setitem__(last, value)
        else:
            setattr(target, last, value)
    return WorldActionModel(config, video=vae_of(tiny_config(WAN)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"depth": 3}, r"got \{'depth': 3\}; set model.depth=2"),
        ({"heads": 4, "head_dim": 8}, "set model.heads=2, model.head_dim=16"),
        ({"streams__future__predicts": "x0"}, "predicts velocity"),
        ({"streams__future__tubelet": 2}, "tubelet 1"),
        ({"streams__text": None}, "no text stream"),
        ({"text": TextConfig(width=40)}, "features of width 32"),
        ({"image_size": 12}, "sides"),
        ({"occupancy__loss_weight": 1.0}, "native future stream"),
        ({"streams__observation__backbone": BackboneConfig(name=WAN, weights="tiny")}, "see `shares`"),
        ({"streams__future__backbone": None, "streams__observation__shares": "future"}, "has a backbone"),
        (
            {
                "streams__observation": StreamConfig(kind="video", shares="future"),
                "visibility": ALONE,
            },
            "sees the observation",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(WamError, match=sentence):
        changed(**changes)


def test_another_vae_than_its_own_is_refused() -> None:
    config = tiny_config("wan2.2-ti2v-5b")
    with pytest.raises(WamError, match="48 channels"):
        WorldActionModel(config, video=vae_of(tiny_config(WAN)))


def test_an_image_to_video_network_holds_its_own_first_frame() -> None:
    with pytest.raises(WamError, match="remove `shares`"):
        tiny_model(GUIDED, shared=True)


def test_the_config_of_a_full_size_run_fits_its_backbone() -> None:
    """Laid out on the meta device, native experts included, with stand-ins for the VAE and the text encoder."""
    config = load_settings(TrainConfig, CONFIGS / "train" / "wan2.2-5b-libero.yaml").model
    backbone = config.streams["future"].backbone
    assert backbone is not None
    backbone.weights = "meta"
    known = load_backbone(backbone.name, "meta").description
    vae = LinearVae(known.latent_channels, spatial=known.spatial, temporal=known.temporal)
    config.text, config.streams["future"].lora = TextConfig(width=known.text_width, vocabulary=8), None
    with torch.device("meta"):
        model = WorldActionModel(config, video=vae)
    borrowed = {name: p for name, p in model.named_parameters() if ".future." in name and ".steer." not in name}
    parts = [p.numel() for name, p in borrowed.items() if ".experts." in name or ".pretrained." in name]
    assert sum(parts) / 1e9 == pytest.approx(5.0, abs=1e-3)
    assert not any(p.requires_grad for name, p in borrowed.items() if ".pretrained." in name)
    native = sum(p.numel() for name, p in model.named_parameters() if ".experts.action." in name)
    assert 0.3 < native / 1e9 < 1
