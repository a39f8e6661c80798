"""Weights at a byte each: how far they are off, that a checkpoint of them loads as what they stand for, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from wam.checkpoint import Checkpoint
from wam.contracts import WamError
from wam.files import sha256
from wam.quantized import SCALE, SMALL, quantize, quantized_count, restored

ROUNDING = 2e-5  # what float32 itself loses in an integer of up to 127 times a scale, in scales


def matrix(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32) * size)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(SMALL, SMALL + 40),
    size=st.floats(1e-30, 1e30),
    spread=st.floats(0, 3),
    seed=st.integers(0, 99),
)
def test_no_weight_is_further_off_than_half_its_rows_scale(
    rows: int, columns: int, size: float, spread: float, seed: int
) -> None:
    value = matrix(rows, columns, seed=seed, size=size) * torch.logspace(0, -spread, rows)[:, None]
    stored = quantize({"w": value})
    assert stored["w"].dtype == torch.int8
    back = restored(stored, count=1)["w"]
    scale = value.abs().amax(1) / 127
    assert torch.all((back - value).abs() <= (0.5 + ROUNDING) * scale[:, None])


def test_a_row_of_zeros_stays_zero_and_one_large_weight_spoils_its_own_row_alone() -> None:
    value = matrix(3, SMALL)
    value[0], value[1, 0] = 0, 1e6
    back = restored(quantize({"w": value}), count=1)["w"]
    assert torch.equal(back[0], value[0])
    assert (back[2] - value[2]).abs().max() < 0.02


def test_rounding_what_was_rounded_changes_no_weight() -> None:
    once = restored(quantize({"w": matrix(8, 4, 8, 8)}), count=1)
    assert torch.allclose(restored(quantize(once), count=1)["w"], once["w"], rtol=1e-6, atol=0)


def test_small_tensors_one_axis_and_integers_stay_as_they_are() -> None:
    kept = {"bias": matrix(5000), "small": matrix(2, 8), "counts": torch.arange(4096).view(64, 64)}
    stored = quantize(kept)
    assert quantized_count(stored) == 0
    assert all(torch.equal(stored[name], value) for name, value in kept.items())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [({"w:scale": matrix(4)}, "names without"), ({"w": matrix(64, 64) / 0}, "finite weights in w")],
)
def test_what_cannot_be_stored_is_said(tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(WamError, match=said):
        quantize(tensors)


class TestCheckpoint:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        tensors = {"w": matrix(64, 64), "conv": matrix(16, 8, 3, 3, seed=1), "bias": matrix(64)}
        Checkpoint(config={"model": {}}, tensors=tensors, provenance={"random": False}).save(tmp_path / "c", int8=True)
        return tmp_path / "c"

    def rewrite(self, folder: Path, change: dict[str, Tensor | None]) -> None:
        """Other tensors, under a hash that fits: what a faulty writer would leave."""
        tensors = load((folder / "model.safetensors").read_bytes())
        for name, value in change.items():
            tensors.pop(name)
            if value is not None:
                tensors[name] = value
        (folder / "model.safetensors").write_bytes(save(tensors))
        provenance = json.loads((folder / "provenance.json").read_text())
        provenance["sha256"]["model.safetensors"] = sha256(folder / "model.safetensors")
        (folder / "provenance.json").write_text(json.dumps(provenance))

    def test_loading_gives_the_float32_weights_that_the_bytes_stand_for(self, folder: Path) -> None:
        stored = load((folder / "model.safetensors").read_bytes())
        found = Checkpoint.load(folder)
        assert set(found.tensors) == {"w", "conv", "bias"}
        scale = stored["conv" + SCALE]
        assert torch.equal(found.tensors["conv"], stored["conv"].float() * scale[:, None, None, None])
        assert found.tensors["w"].dtype == torch.float32
        assert torch.equal(found.tensors["bias"], matrix(64))

    def test_it_takes_about_a_byte_a_weight(self, tmp_path: Path) -> None:
        Checkpoint(config={}, tensors={"w": matrix(256, 512)}).save(tmp_path / "c", int8=True)
        assert (tmp_path / "c" / "model.safetensors").stat().st_size < 1.03 * 256 * 512

    def test_saved_again_in_full_it_says_so(self, folder: Path, tmp_path: Path) -> None:
        Checkpoint.load(folder).save(tmp_path / "full")
        assert "storage" not in json.loads((tmp_path / "full" / "provenance.json").read_text())
        assert torch.equal(Checkpoint.load(tmp_path / "full").tensors["w"], Checkpoint.load(folder).tensors["w"])

    def test_a_flipped_byte_is_found(self, folder: Path) -> None:
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-100] ^= 1
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(WamError, match="damaged or changed"):
            Checkpoint.load(folder)

    def test_half_a_file_is_found(self, folder: Path) -> None:
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
        with pytest.raises(WamError, match="damaged or changed"):
            Checkpoint.load(folder)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"w:scale": None}, "expected 2 int8 matrices with their scales, got 1"),
            ({"w": None}, "a matrix for each of 2 scales"),
            ({"w:scale": matrix(63)}, "w as int8 with a finite scale for each of its rows"),
            ({"w:scale": matrix(64) / 0}, "w as int8 with a finite scale for each of its rows"),
            ({"w": matrix(64, 64)}, "w as int8 with a finite scale for each of its rows"),
        ],
    )
    def test_parts_that_do_not_fit_are_refused_in_one_sentence(
        self, folder: Path, change: dict[str, Tensor | None], said: str
    ) -> None:
        self.rewrite(folder, change)
        with pytest.raises(WamError, match=said) as error:
            Checkpoint.load(folder)
        assert "fetch" in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("storage", [{"int4": 2}, {"int8": "two"}, 7])
    def test_a_storage_that_this_version_does_not_know_is_refused(self, folder: Path, storage: object) -> None:
        provenance = json.loads((folder / "provenance.json").read_text())
        (folder / "provenance.json").write_text(json.dumps({**provenance, "storage": storage}))
        with pytest.raises(WamError, match="newer version of wam"):
            Checkpoint.load(folder)
