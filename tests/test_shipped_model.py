"""The model beside the notebooks: small, trained, loads in one line, evaluated like a run, its card's figures its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import wam
from tests.tools import tool
from tests.training.conftest import toy_config, voxel_config, write_toy, write_voxels
from wam.contracts import WamError
from wam.evaluation.summary import write_summary
from wam.files import sha256
from wam.model.pretrained import from_pretrained
from wam.training.state import newest_checkpoint, trained_config
from wam.training.trainer import train

ROOT = Path(__file__).parent.parent
SHIPPED = sorted(path.parent for path in (ROOT / "notebooks").glob("*/model.safetensors"))
each_shipped = pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)


@each_shipped
class TestShipped:
    def test_it_is_small_and_trained(self, folder: Path) -> None:
        model = from_pretrained(folder)
        assert (folder / "model.safetensors").stat().st_size < 10_000_000
        assert model.provenance["random"] is False
        assert model.provenance["step"] >= 300
        assert all(value.isfinite().all() for value in model.state_dict().values())

    def test_it_says_what_it_was_trained_with(self, folder: Path) -> None:
        assert trained_config(folder).model.streams.keys() == from_pretrained(folder).config.streams.keys()

    def test_the_card_prints_the_figures_of_these_very_weights(self, folder: Path) -> None:
        shipping, card = tool("ship_model"), (folder / "README.md").read_text()
        if not (folder / "figures.json").is_file():
            assert f"{shipping.BEGIN}\n{shipping.NOT_YET}\n{shipping.END}" in card
            return
        figures, provenance = (json.loads((folder / f"{name}.json").read_text()) for name in ("figures", "provenance"))
        assert figures["weights"] == sha256(folder / "model.safetensors")
        assert shipping.table(figures, provenance) in card


class TestShipping:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("ship")
        train(toy_config(write_toy(root / "data"), root / "run", steps=2))
        return root / "run"

    def test_a_run_becomes_a_folder_that_works_like_it(self, run: Path, tmp_path: Path) -> None:
        assert tool("ship_model").ship(run, tmp_path / "model") is False
        own, found = wam.load(run), wam.load(tmp_path / "model")
        for name, value in own.model.named_parameters():
            off = (found.model.get_parameter(name) - value).abs()
            assert not value.numel() or off.max() <= value.abs().max() / 250, name
        assert found.start(0.5).instruction == own.start(0.5).instruction
        assert trained_config(tmp_path / "model") == trained_config(newest_checkpoint(run))
        assert found.model.provenance["rounded_from"] == sha256(newest_checkpoint(run) / "model.safetensors")

    def test_the_card_has_figures_once_these_weights_are_evaluated(self, run: Path, tmp_path: Path) -> None:
        shipping, folder = tool("ship_model"), tmp_path / "model"
        write_summary(
            folder / "summary.json", {"forward_gain_db": 9.0}, n={"play_windows": 8}, seeds=[0]
        )  # of older weights
        assert shipping.ship(run, folder) is False
        assert shipping.NOT_YET in (folder / "README.md").read_text()
        written = (folder / "model.safetensors").stat().st_mtime_ns
        card = (folder / "README.md").read_text()
        (folder / "README.md").write_text(card + "\n## What it cannot do\n\nMuch.\n")
        write_summary(
            folder / "summary.json", {"forward_gain_db": 1.5, "success_mean": 0.25}, n={"starts_per_task": 4}, seeds=[0]
        )
        write_summary(run / "summary.json", {"forward_gain_db": 1.625}, n={"play_windows": 8}, seeds=[0])
        assert shipping.ship(run, folder) is True
        assert (folder / "model.safetensors").stat().st_mtime_ns == written
        card = (folder / "README.md").read_text()
        assert "| `forward_gain_db` | 1.500 | 1.625 |" in card
        assert "| `success_mean` | 0.250 |  |  | 4 |" in card
        assert card.endswith("Much.\n")
        assert shipping.NOT_YET not in card

    def test_figures_stay_with_their_weights_and_go_with_them(self, run: Path, tmp_path: Path) -> None:
        shipping, folder = tool("ship_model"), tmp_path / "model"
        shipping.ship(run, folder)
        write_summary(folder / "summary.json", {"forward_gain_db": 1.5}, n={"play_windows": 8}, seeds=[0])
        assert shipping.ship(run, folder) is True
        (folder / "summary.json").unlink()  # as in a fresh clone, which has the card and figures.json alone
        assert shipping.ship(run, folder) is True
        figures = json.loads((folder / "figures.json").read_text())
        (folder / "figures.json").write_text(json.dumps({**figures, "weights": "others"}))
        assert shipping.ship(run, folder) is False
        assert not (folder / "figures.json").exists()

    def test_the_heads_of_colour_can_be_left_out_and_nothing_else_goes(self, tmp_path: Path) -> None:
        data = write_voxels(write_toy(tmp_path / "data"), colour=True)
        config = voxel_config(data, tmp_path / "run", steps=1)
        config.model.occupancy.colour_weight = 1.0
        train(config)
        tool("ship_model").ship(tmp_path / "run", tmp_path / "whole")
        tool("ship_model").ship(tmp_path / "run", tmp_path / "plain", colour=False)
        whole, plain = (wam.load(tmp_path / name, data=str(data)).model.state_dict() for name in ("whole", "plain"))
        assert {name for name in whole if name not in plain} == {name for name in whole if ".colour." in name} != set()
        assert all(value.equal(whole[name]) for name, value in plain.items())

    def test_a_model_too_large_for_the_repository_is_refused_and_leaves_nothing(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shipping = tool("ship_model")
        monkeypatch.setattr(shipping, "LIMIT", 1000)
        with pytest.raises(WamError, match="train a smaller model"):
            shipping.ship(run, tmp_path / "model")
        assert not (tmp_path / "model" / "provenance.json").exists()


def test_a_folder_that_does_not_say_what_it_was_trained_with_is_refused(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("{}")
    with pytest.raises(WamError, match="what it was trained with"):
        trained_config(tmp_path)
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(WamError, match=r"provenance\.json"):
        trained_config(tmp_path)
