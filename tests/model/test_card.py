"""The card says what is in the folder, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.model.conftest import tiny_config
from wam.model.backbones.config import BackboneConfig
from wam.model.card import write_card
from wam.model.pretrained import CARD, save_pretrained
from wam.model.wam import WorldActionModel

PRETRAINED = {"source": "Wan-AI/Wan2.2", "revision": "abc", "sha256": "0123456789abcdef", "random": False}


def card(**provenance: object) -> str:
    config = tiny_config()
    config.streams["future"].backbone = BackboneConfig(name="wan2.2-ti2v-5b", frozen=True)
    return write_card(config, parameters=10, provenance=provenance, cameras=("side",), action_space=None)


def test_a_saved_model_has_one_with_its_streams_and_its_origin(tmp_path: Path) -> None:
    model = WorldActionModel(tiny_config())
    save_pretrained(
        model, tmp_path, cameras=("side", "top"), provenance={"stage": "joint", "step": 7, "data": ["a", "b"]}
    )
    text = (tmp_path / CARD).read_text()
    for words in ("| future | video | 32 | x0 |", "| text | text |", "side, top", "step: 7", "data: a, b", "pixels"):
        assert words in text
    assert f"{sum(t.numel() for t in model.state_dict().values()):,} numbers" in text
    assert "Random" not in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "wam"
    assert "base_model" not in front


def test_it_names_the_base_that_a_checkpoint_leaves_out() -> None:
    text = card(parts={"backbones": {"future": PRETRAINED}})
    assert yaml.safe_load(text.split("---")[1])["base_model"] == ["Wan-AI/Wan2.2"]
    assert "Wan-AI/Wan2.2 (revision abc, sha256 0123456789ab)" in text
    assert "wan2.2-ti2v-5b, frozen" in text


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({"random": True}, "untrained: the whole model"),
        ({"parts": {"backbones": {"future": {**PRETRAINED, "random": True}}}}, "untrained: future"),
        ({"parts": {"text": {"source": "t5", "revision": None, "random": True}}}, "untrained: text"),
    ],
)
def test_random_weights_are_said_first(provenance: dict[str, object], words: str) -> None:
    text = card(**provenance)
    assert words in text
    assert text.index(words) < text.index("| stream |")
