"""Adapters and frozen backbones: what is trained, what a checkpoint holds, and which base it needs."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.model.backbones.tools import tiny_config, tiny_model, vae_of
from wam.contracts import WamError
from wam.files import sha256
from wam.model import pretrained
from wam.model.backbones.adapters import is_adapter, plain_name
from wam.model.backbones.config import BackboneConfig, LoraConfig
from wam.model.backbones.load import load_backbone
from wam.model.pretrained import from_pretrained, save_pretrained
from wam.model.synthetic import synthetic_batch
from wam.model.wam import WorldActionModel
from wam.training.config import StartConfig
from wam.training.objective import joint_losses
from wam.training.start import start_from

peft = pytest.importorskip("peft")
WAN = "wan2.1-t2v-1.3b"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of a base, which for the model are pretrained."""
    place = tmp_path_factory.mktemp("base")
    torch.manual_seed(5)
    load_backbone(WAN, "tiny").network.save_pretrained(place / "transformer")  # type: ignore[operator]
    return place


@pytest.fixture(autouse=True)
def _linear_vae(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of these tests are opened with the tokenizer they were made with, which no file holds."""
    whole = WorldActionModel.__init__

    def made(self: WorldActionModel, config: object, **options: object) -> None:
        whole(self, config, **{"video": vae_of(config), **options})  # type: ignore[arg-type]

    monkeypatch.setattr(pretrained.WorldActionModel, "__init__", made)


def on_base(base: Path, *, frozen: bool = False, lora: LoraConfig | None = None, seed: int = 0) -> WorldActionModel:
    torch.manual_seed(seed)
    config = tiny_config(WAN)
    config.streams["future"].backbone = BackboneConfig(name=WAN, source=str(base), frozen=frozen)
    config.streams["future"].lora = lora
    return WorldActionModel(config).eval()


def train(model: WorldActionModel, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    batch = synthetic_batch(model.config, 2)
    for step in range(steps):
        joint_losses(model, batch, generator=torch.Generator().manual_seed(step))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()


def test_adapters_start_as_nothing() -> None:
    plain = tiny_model(WAN)
    torch.manual_seed(0)
    config = tiny_config(WAN)
    config.streams["future"].lora, config.streams["action"].lora = LoraConfig(rank=2), LoraConfig(rank=3)
    adapted = WorldActionModel(config).eval()
    own = {plain_name(name): name for name in adapted.state_dict()}
    adapted.load_state_dict({own[name]: value for name, value in plain.state_dict().items()}, strict=False)
    batch = synthetic_batch(plain.config, 2)
    assert torch.equal(plain.joint(batch).action, adapted.joint(batch).action)
    assert torch.equal(plain.joint(batch).future, adapted.joint(batch).future)


def test_only_adapters_and_native_parts_are_trained(base: Path) -> None:
    model = on_base(base, lora=LoraConfig(rank=2))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert not moved & model.borrowed()
    experts = {name for name in moved if ".experts.future." in name}
    assert experts
    assert all(is_adapter(name) for name in experts)
    assert any(".experts.action." in name for name in moved)
    assert "network.videos.future.steer.weight" in moved


@pytest.mark.parametrize(
    ("stream", "targets", "beside"),
    [
        ("action", [], {"to_qkv", "to_out"}),
        ("future", [], {"to_q", "to_k", "to_v", "0"}),
        ("future", ["ffn.net.0.proj", "attn2.to_k"], {"proj", "to_k"}),
        ("text", ["mlp_in"], {"mlp_in"}),
    ],
)
def test_adapters_stand_beside_the_layers_named(stream: str, targets: list[str], beside: set[str]) -> None:
    config = tiny_config(WAN)
    config.streams[stream].lora = LoraConfig(rank=2, alpha=4, targets=targets)
    experts = WorldActionModel(config).network.transformer.experts[stream]
    adapters = [name for name, _ in experts.named_parameters() if is_adapter(name)]
    assert {name.split(".lora_")[0].split(".")[-1] for name in adapters} == beside
    assert {p.shape[0] for name, p in experts.named_parameters() if "lora_A" in name} == {2}
    trained = {name for name, p in experts.named_parameters() if p.requires_grad}
    assert trained == set(adapters)


def test_without_peft_adapters_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    config = tiny_config(WAN)
    config.streams["future"].lora = LoraConfig()
    with pytest.raises(WamError, match=r"install it with pip install 'wam\[adapters\]'"):
        WorldActionModel(config)


def test_a_target_that_names_no_layer_is_refused_with_those_there_are() -> None:
    config = tiny_config(WAN)
    config.streams["future"].lora = LoraConfig(targets=["to_query"])
    with pytest.raises(WamError, match=r"among attn1\.to_k, attn1\.to_out\.0, .*got \['to_query'\]"):
        WorldActionModel(config)
    config.streams["future"].lora = LoraConfig(rank=0)
    with pytest.raises(WamError, match=r"lora\.rank"):
        WorldActionModel(config)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_a_checkpoint_leaves_a_frozen_base_out_and_says_which_it_needs(
    base: Path, tmp_path: Path, lora: LoraConfig | None
) -> None:
    model = on_base(base, frozen=lora is None, lora=lora)
    train(model)
    save_pretrained(model, tmp_path / "model")
    held = set(load_file(tmp_path / "model" / "model.safetensors"))
    assert held == set(model.state_dict())
    assert not held & model.borrowed()
    assert any(map(is_adapter, held)) == (lora is not None)
    again = from_pretrained(tmp_path / "model")
    assert again.provenance["parts"]["backbones"]["future"] == {
        "name": WAN,
        "source": str(base),
        "revision": None,
        "random": False,
        "sha256": sha256(base / "transformer" / "diffusion_pytorch_model.safetensors"),
    }
    batch = synthetic_batch(model.config, 2)
    assert torch.equal(model.eval().joint(batch).action, again.joint(batch).action)
    assert torch.equal(model.joint(batch).future, again.joint(batch).future)


def test_without_its_base_a_checkpoint_is_one_clear_sentence(base: Path, tmp_path: Path) -> None:
    place = tmp_path / "base"
    shutil.copytree(base, place)
    save_pretrained(on_base(place, frozen=True), tmp_path / "model")
    shutil.move(place, tmp_path / "elsewhere")
    with pytest.raises(WamError) as error:
        from_pretrained(tmp_path / "model")
    sentence = str(error.value)
    assert f"the base that {tmp_path / 'model'} leaves out, {WAN}" in sentence
    assert "\n" not in sentence
    moved = from_pretrained(tmp_path / "model", bases={"future": str(tmp_path / "elsewhere")})
    assert moved.borrowed()


def test_another_base_than_the_one_trained_on_is_refused(base: Path, tmp_path: Path) -> None:
    save_pretrained(on_base(base, frozen=True), tmp_path / "model")
    torch.manual_seed(6)
    load_backbone(WAN, "tiny").network.save_pretrained(tmp_path / "other" / "transformer")  # type: ignore[operator]
    with pytest.raises(WamError, match=r"with sha256 .* got .*; fetch the revision"):
        from_pretrained(tmp_path / "model", bases={"future": str(tmp_path / "other")})


@pytest.mark.parametrize("name", [WAN, "wan2.1-i2v-14b", "ltx-video"])
def test_weights_that_no_base_has_are_in_the_checkpoint(name: str, tmp_path: Path) -> None:
    """Random ones, though they are frozen."""
    model = tiny_model(name)
    backbone = model.config.streams["future"].backbone
    assert backbone is not None
    backbone.frozen = True
    save_pretrained(model, tmp_path / "model")
    again = from_pretrained(tmp_path / "model")
    assert again.provenance["parts"]["backbones"]["future"]["random"]
    batch = synthetic_batch(model.config, 2)
    assert torch.equal(model.joint(batch).future, again.joint(batch).future)


def test_a_base_that_was_trained_on_is_in_the_checkpoint_and_needed_no_more(base: Path, tmp_path: Path) -> None:
    place = tmp_path / "base"
    shutil.copytree(base, place)
    model = on_base(place)
    train(model)
    save_pretrained(model, tmp_path / "model")
    shutil.rmtree(place)
    again = from_pretrained(tmp_path / "model")
    batch = synthetic_batch(model.config, 2)
    assert torch.equal(model.eval().joint(batch).future, again.joint(batch).future)


def test_a_copy_of_a_model_runs_through_its_own_layers() -> None:
    model = tiny_model(WAN, shared=True)
    batch, other = synthetic_batch(model.config, 2), copy.deepcopy(model)
    before = model.joint(batch).future
    with torch.no_grad():
        for parameter in model.network.videos["future"].pretrained.parameters():  # type: ignore[union-attr]
            parameter.zero_()
    assert torch.equal(other.joint(batch).future, before)
    assert not torch.equal(model.joint(batch).future, before)


def test_a_start_gives_adapters_the_weights_they_stand_beside(base: Path, tmp_path: Path) -> None:
    first = on_base(base, frozen=True)
    train(first)
    save_pretrained(first, tmp_path / "first")
    config = tiny_config(WAN)
    config.streams["future"].backbone = BackboneConfig(name=WAN, source=str(base))
    config.streams["future"].lora, config.streams["action"].lora = LoraConfig(rank=2), LoraConfig(rank=2)
    second = WorldActionModel(config).eval()
    started = start_from(second, StartConfig(checkpoint=str(tmp_path / "first")))
    assert all(is_adapter(name) for name in started.fresh)
    batch = synthetic_batch(config, 2)
    second.normalizers.load_state_dict(first.normalizers.state_dict())
    assert torch.equal(first.eval().joint(batch).action, second.joint(batch).action)


def test_a_start_that_changed_the_frozen_base_is_refused(base: Path, tmp_path: Path) -> None:
    save_pretrained(on_base(base), tmp_path / "tuned")
    with pytest.raises(WamError, match="leaves the frozen backbone as its base has it"):
        start_from(on_base(base, frozen=True), StartConfig(checkpoint=str(tmp_path / "tuned")))
