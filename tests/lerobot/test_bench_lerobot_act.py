"""LeRobot's own policies as the bench makes them: offline, small here, and asked for whole chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lerobot", reason="lerobot has a Python of its own: make test-lerobot")

from lerobot.configs import FeatureType, PolicyFeature

from tests.tools import tool
from wam.model.backbones.vlm.catalogue import VLMS

SENTENCE = "pick up the red cube and put it on the shelf"
CAMERAS = ("observation.images.top", "observation.images.wrist")
INPUTS = {
    **{name: PolicyFeature(type=FeatureType.VISUAL, shape=(3, 64, 64)) for name in CAMERAS},
    "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(8,)),
}
OUTPUTS = {"action": PolicyFeature(type=FeatureType.ACTION, shape=(7,))}


@pytest.fixture(scope="module")
def bench() -> Any:
    return tool("bench_lerobot_act")


def seen(seed: int) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    found = {key: torch.rand(1, *feature.shape, generator=g) for key, feature in INPUTS.items()}
    return {**found, "task": [SENTENCE]}


class TestDiffusionPolicy:
    @pytest.fixture
    def made(self, bench: Any) -> tuple[Any, Any, Any]:
        torch.manual_seed(0)
        small = {"down_dims": (16, 16, 16), "num_inference_steps": 2, "pretrained_backbone_weights": None}
        return bench.make_theirs("diffusion", INPUTS, OUTPUTS, **small)

    def test_a_whole_chunk_is_planned(self, bench: Any, made: Any) -> None:
        assert bench.remembering(*made, seen(0))().shape == (1, 32, 7)

    def test_it_sees_the_moment_before(self, bench: Any, made: Any) -> None:
        first, now = bench.remembering(*made, seen(0)), bench.remembering(*made, seen(1))

        def planned(*moments: Any) -> torch.Tensor:
            made[0].reset()
            for plan in moments:
                torch.manual_seed(0)  # of the noise that it starts from
                chunk = plan()
            return chunk

        assert torch.equal(planned(now, now), planned(now))  # a queue that is empty is filled with the first
        assert not torch.equal(planned(first, now), planned(now, now))


class TestSmolVla:
    @pytest.fixture(autouse=True)
    def _needs(self, bench: Any) -> None:
        if bench.lacking("smolvla"):
            pytest.skip(f"SmolVLA needs {', '.join(bench.lacking('smolvla'))}: make test-lerobot")

    def test_it_is_made_without_a_network_and_plans_a_chunk(
        self, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        bench.write_vlm(tmp_path, VLMS[bench.VLM].tiny, SENTENCE)
        small = {"vlm_model_name": str(tmp_path), "load_vlm_weights": False, "resize_imgs_with_padding": (32, 32)}
        made = bench.make_theirs("smolvla", INPUTS, OUTPUTS, **small)
        assert bench.pipeline(*made, seen(0))().shape == (1, 50, 7)

    def test_a_word_is_one_token(self, bench: Any, tmp_path: Path) -> None:
        from transformers import AutoTokenizer

        bench.write_vlm(tmp_path, VLMS[bench.VLM].tiny, SENTENCE)
        ids = AutoTokenizer.from_pretrained(str(tmp_path))(f"{SENTENCE}\n")["input_ids"]
        assert len(ids) == len(SENTENCE.split()) + 1


def test_what_a_contestant_lacks_is_named(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.NEEDS, "smolvla", ("no_such_package", "torch"))
    assert bench.lacking("smolvla") == ["no_such_package"]
