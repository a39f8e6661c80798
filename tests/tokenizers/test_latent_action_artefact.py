"""The tokenizer that is shipped: loads in one line, is trained, small, and its card says what was measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.tools import tool
from wam.contracts import WamError
from wam.tokenizers.latent_action import LatentActionTokenizer

FOLDER = Path(__file__).parents[2] / "tokenizers" / "latent_action"


@pytest.fixture(scope="module")
def tokenizer() -> LatentActionTokenizer:
    return LatentActionTokenizer.from_pretrained(FOLDER)


def test_its_weights_are_trained_and_small(tokenizer: LatentActionTokenizer) -> None:
    assert tokenizer.provenance["random"] is False
    assert tokenizer.provenance["step"] >= 1000
    assert (FOLDER / "model.safetensors").stat().st_size < 10_000_000


def test_one_view_or_several_give_codes_and_frames(tokenizer: LatentActionTokenizer) -> None:
    frames = torch.randint(0, 255, (2, 3, 3, 64, 64, 3), dtype=torch.uint8)
    for views in (1, 2, 3):
        found = tokenizer.encode(frames[:, :views])
        assert found.codes is not None
        assert found.latents.shape[:2] == found.codes.shape[:2] == (2, 2 * tokenizer.config.tokens)
        assert tokenizer.decode(frames[:, :views, :1], found.latents).shape == (2, views, 2, 64, 64, 3)


def test_a_square_that_moves_is_told_from_one_that_stands(tokenizer: LatentActionTokenizer) -> None:
    frames = torch.full((2, 1, 2, 64, 64, 3), 90, dtype=torch.uint8)
    frames[:, :, 0, 24:40, 20:36] = 220
    frames[0, :, 1, 24:40, 20:36] = 220
    frames[1, :, 1, 24:40, 30:46] = 220
    mask = torch.zeros(2, 3, dtype=torch.bool)
    mask[:, 2] = True
    placed = torch.zeros(2, 3, *frames.shape[2:], dtype=torch.uint8)
    placed[:, 2] = frames[:, 0]
    found = tokenizer.encode(placed, view_mask=mask)
    assert found.codes is not None
    assert (found.codes[0] != found.codes[1]).float().mean() > 0.2
    told = tokenizer.decode(placed[:, :, :1], found.latents, view_mask=mask)[:, 2, 0]
    change = (told - (placed[:, 2, 0].float() / 127.5 - 1)).abs().mean(dim=(1, 2, 3))
    assert change[1] > 1.5 * change[0]


def test_the_card_prints_the_figures_that_were_measured() -> None:
    card = (FOLDER / "README.md").read_text()
    summary, provenance = (json.loads((FOLDER / f"{name}.json").read_text()) for name in ("figures", "provenance"))
    assert tool("ship_tokenizer").table(summary, provenance) in card
    assert "CC BY-SA" in card


def test_only_an_evaluated_run_is_shipped(tmp_path: Path) -> None:
    run, ship = tmp_path / "run", tool("ship_tokenizer").ship
    shutil.copytree(FOLDER, run)
    shutil.copytree(FOLDER, tmp_path / "shipped")
    before = (tmp_path / "shipped" / "README.md").read_text()
    with pytest.raises(WamError, match="wam eval latent-action"):
        ship(run, tmp_path / "shipped")
    summary = json.loads((FOLDER / "figures.json").read_text())
    summary["figures"]["probe_r2"] = 0.123
    measured = run / "evaluation" / "latent-action" / "summary.json"
    measured.parent.mkdir(parents=True)
    measured.write_text(json.dumps(summary))
    ship(run, tmp_path / "shipped")
    after = (tmp_path / "shipped" / "README.md").read_text()
    assert "| `probe_r2` | 0.123 |" in after
    assert "Missed: `probe_r2`" in after
    assert after.split("## What it cannot do")[1] == before.split("## What it cannot do")[1]
