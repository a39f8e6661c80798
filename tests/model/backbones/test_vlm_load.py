"""Loading a vision-language model: what is on this machine with its tokenizer, never anything else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wam.contracts import WamError
from wam.files import sha256
from wam.model.backbones.load import load_backbone
from wam.model.backbones.vlm.catalogue import SPECIAL, VLMS
from wam.model.backbones.vlm.load import VlmBackbone, load_vlm
from wam.model.backbones.vlm.parity import difference, draw_example

SMOL = "smolvlm2-500m"


def save_tiny(folder: Path, name: str = SMOL, *, special: tuple[str, ...] = SPECIAL) -> Path:
    """A small network of the class with a tokenizer of letters, as a hub's folder keeps them."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    load_vlm(name, "tiny").network.save_pretrained(folder)  # type: ignore[operator]
    letters = {chr(i): i for i in range(256)} | {"[UNK]": 256}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.add_special_tokens(list(special))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("smolvlm"))


@pytest.mark.parametrize("name", sorted(VLMS))
def test_without_its_weights_a_name_says_what_to_download_and_to_where(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WamError) as error:
        load_backbone(name)
    sentence = str(error.value)
    assert f"hf download {VLMS[name].repository}" in sentence
    assert str(tmp_path) in sentence
    assert "\n" not in sentence


def test_what_is_read_is_what_was_saved_and_says_where_it_came_from(folder: Path) -> None:
    backbone = load_backbone(SMOL, source=str(folder))
    assert isinstance(backbone, VlmBackbone)
    saved = load_file(folder / "model.safetensors")
    state = backbone.network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in saved.items())
    assert backbone.provenance == {
        "source": str(folder),
        "revision": None,
        "random": False,
        "sha256": sha256(folder / "model.safetensors"),
    }
    assert backbone.description == load_vlm(SMOL, "tiny").description
    assert difference(backbone, draw_example(backbone, views=1, times=1, lengths=(3, 5))) < 1e-5


def test_a_folder_needs_no_name_of_the_catalogue(folder: Path) -> None:
    backbone = load_backbone(str(folder))
    assert isinstance(backbone, VlmBackbone)
    assert not backbone.provenance["random"]


def test_weights_that_are_missing_are_never_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(folder, tmp_path / "cut")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(name for name in tensors if "v_proj" in name))
    save_file(tensors, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WamError, match="never filled at random"):
        load_backbone(SMOL, source=str(tmp_path / "cut"))
    (tmp_path / "cut" / "model.safetensors").unlink()
    with pytest.raises(WamError, match=r"config\.json and safetensors weights"):
        load_backbone(SMOL, source=str(tmp_path / "cut"))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "other", special=("<bos>",))
    with pytest.raises(WamError, match=r"tokenizer of smolvlm2-500m that knows .*fake_token_around_image"):
        load_backbone(SMOL, source=str(tmp_path / "other"))


def test_a_number_of_layers_that_there_is_not_is_refused() -> None:
    with pytest.raises(WamError, match=r"backbone\.layers from 1 to 2"):
        load_vlm(SMOL, "tiny", layers=3)
    with pytest.raises(WamError, match="name among"):
        load_vlm("smolvlm9", "tiny")
