"""Loading a backbone: what is on this machine, never anything else, and where it came from."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wam.contracts import WamError
from wam.files import sha256, write_json
from wam.model.backbones.assembly import put_together, take_apart
from wam.model.backbones.catalogue import CATALOGUE
from wam.model.backbones.load import load_backbone

WAN = "wan2.1-t2v-1.3b"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder with a small Wan transformer."""
    place = tmp_path_factory.mktemp("wan")
    torch.manual_seed(0)
    load_backbone(WAN, "tiny").network.save_pretrained(place / "transformer")  # type: ignore[operator]
    return place


def test_importing_the_model_loads_no_pretrained_library() -> None:
    code = (
        "import wam.model.wam, wam.model.backbones.streams, wam.model.backbones.parity, sys\n"
        "print([n for n in ('diffusers', 'transformers', 'peft') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_without_its_weights_a_name_says_what_to_download_and_to_where(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WamError) as error:
        load_backbone(name)
    sentence = str(error.value)
    assert f"hf download {CATALOGUE[name].repository}" in sentence
    assert str(tmp_path) in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("wan2.1-1.3b", "perhaps wan2.1-t2v-1.3b"),
        ("resnet", "name one of them"),
        ("/no/such/folder", "no folder"),
    ],
)
def test_an_unknown_name_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(WamError, match=sentence):
        load_backbone(name)


def test_what_is_read_is_what_was_saved_and_says_where_it_came_from(folder: Path) -> None:
    backbone = load_backbone(WAN, source=str(folder))
    saved = load_file(folder / "transformer" / WEIGHTS)
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, saved[key])
    assert backbone.provenance == {
        "source": str(folder),
        "revision": None,
        "random": False,
        "sha256": sha256(folder / "transformer" / WEIGHTS),
    }
    assert backbone.description == load_backbone(WAN, "tiny").description


def test_a_folder_that_was_filled_at_random_says_so(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "wan")
    write_json(tmp_path / "wan" / "provenance.json", {"source": "a test", "revision": None, "random": True})
    assert load_backbone(WAN, source=str(tmp_path / "wan")).provenance["random"]
    assert load_backbone(WAN, "tiny").provenance["random"]


def test_a_folder_of_the_transformer_alone_needs_no_name_of_the_catalogue(folder: Path) -> None:
    backbone = load_backbone(str(folder / "transformer"))
    assert backbone.description.family == "wan"
    assert backbone.provenance["sha256"] == sha256(folder / "transformer" / WEIGHTS)


def test_weights_in_several_files_have_one_fingerprint(folder: Path, tmp_path: Path) -> None:
    whole = load_backbone(WAN, source=str(folder))
    whole.network.save_pretrained(tmp_path / "transformer", max_shard_size="80KB")  # type: ignore[operator]
    files = sorted((tmp_path / "transformer").glob("*.safetensors"))
    assert len(files) > 2
    split = load_backbone(WAN, source=str(tmp_path))
    digests = "".join(sha256(file) for file in files)
    assert split.provenance["sha256"] == hashlib.sha256(digests.encode()).hexdigest()
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, split.network.state_dict()[key])


def test_the_hubs_cache_is_read_with_its_commit_and_digest(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of the cache: a snapshot of links to blobs, of which large ones are named by their sha256."""
    commit, cache = "c0ffee" + 34 * "0", tmp_path / "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers"
    snapshot = cache / "snapshots" / commit / "transformer"
    for made in (snapshot, cache / "blobs", cache / "refs"):
        made.mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    for file in (folder / "transformer").iterdir():
        blob = cache / "blobs" / (sha256(file) if file.suffix == ".safetensors" else f"etag-{file.stem}")
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = load_backbone(WAN).provenance
    assert found == {
        "source": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "revision": commit,
        "random": False,
        "sha256": sha256(folder / "transformer" / WEIGHTS),
    }


def test_missing_weights_are_never_filled_at_random(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "wan")
    weights = tmp_path / "wan" / "transformer" / WEIGHTS
    tensors = load_file(weights)
    del tensors["blocks.1.attn1.to_k.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(WamError, match=r"1 missing, blocks\.1\.attn1\.to_k\.weight"):
        load_backbone(WAN, source=str(tmp_path / "wan"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WamError, match="safetensors weights"):
        load_backbone(WAN, source=str(tmp_path / "wan"))
    weights.unlink()
    with pytest.raises(WamError, match="safetensors weights"):
        load_backbone(WAN, source=str(tmp_path / "wan"))


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "wan")
    weights = tmp_path / "wan" / "transformer" / WEIGHTS
    torch.save(load_file(weights), weights.with_name("diffusion_pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(WamError, match="safetensors weights"):
        load_backbone(WAN, source=str(tmp_path / "wan"))


def test_another_class_of_transformer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    write_json(tmp_path / "transformer" / "config.json", {"_class_name": "FluxTransformer2DModel"})
    with pytest.raises(WamError, match="a transformer of class WanTransformer3DModel"):
        load_backbone(WAN, source=str(tmp_path))


def test_a_fine_tuned_network_goes_back_to_diffusers(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(WAN, source=str(folder))
    ends, layers = take_apart(backbone)
    with torch.no_grad():
        layers[1].block.attn1.to_q.weight.add_(1)
    put_together(ends, layers).save_pretrained(tmp_path / "transformer")  # type: ignore[operator]
    again = load_backbone(WAN, source=str(tmp_path))
    old, new = load_file(folder / "transformer" / WEIGHTS), again.network.state_dict()
    assert [key for key in old if not torch.equal(old[key], new[key])] == ["blocks.1.attn1.to_q.weight"]
