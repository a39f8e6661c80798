"""The latent-action stage: hides labels unless asked, resumes bit for bit, stops on collapse, saves what can be loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.training.conftest import toy_config, write_toy
from wam.contracts import WamError
from wam.tokenizers.latent_action import LatentActionConfig, LatentActionTokenizer
from wam.tokenizers.quantizers import QuantizerConfig
from wam.training.config import DataPart, TrainConfig
from wam.training.stages.latent_action import LABELLED, LatentActionStage
from wam.training.state import last_checkpoint
from wam.training.trainer import train


def config_of(toy: Path, output: Path, **changes: object) -> TrainConfig:
    own = LatentActionConfig(
        image_size=16, views=2, gap=4, base=8, width=16, quantizer=QuantizerConfig(kind="vq", codes=16, dim=4)
    )
    return toy_config(toy, output, **{"stage": "latent-action", "latent_action": own, **changes})


def tokenizer_of(run: Path) -> LatentActionTokenizer:
    folder = last_checkpoint(run)
    assert folder is not None
    return LatentActionTokenizer.from_pretrained(folder)


def test_a_run_in_two_parts_equals_one_in_one(toy: Path, tmp_path: Path) -> None:
    for name, stops in (("whole", (6,)), ("parts", (3, 6))):
        for stop in stops:
            config = config_of(toy, tmp_path / name, steps=stop)
            config.optimizer.warmup = 10  # the same rates, however many steps
            train(config)
    one, two = (tokenizer_of(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert int(one["quantizer.batches"]) == 6


def test_a_trained_tokenizer_loads_and_says_what_made_it(toy: Path, tmp_path: Path) -> None:
    result = train(config_of(toy, tmp_path, check_every=6))
    tokenizer = tokenizer_of(tmp_path)
    assert tokenizer.cameras == ("a", "b")
    assert tokenizer.provenance["random"] is False
    assert tokenizer.provenance["gap_seconds"] == pytest.approx(0.4)
    assert tokenizer.provenance["data"] == [str(toy)]
    assert {"code_sensitivity", "perplexity_share", "gain_db"} <= set(result.checks)
    frames = torch.randint(0, 255, (2, 2, 2, 16, 16, 3), dtype=torch.uint8)
    assert tokenizer.encode(frames).latents.shape == (2, 1, 4)


def test_labels_stay_hidden_unless_asked_for(toy: Path, tmp_path: Path) -> None:
    stage = LatentActionStage(config_of(toy, tmp_path))
    assert all(dataset.action_dim is None for dataset in stage.mixture.datasets)
    assert stage.objective.labels is None


def test_a_share_of_the_episodes_may_show_their_labels(toy: Path, tmp_path: Path) -> None:
    config = config_of(toy, tmp_path, steps=4)
    config.latent_action.labels.share = 0.5
    stage = LatentActionStage(config)
    named = dict(zip(stage.mixture.names, stage.mixture.datasets, strict=True))
    shown = {e.index for name, d in named.items() if name.endswith(LABELLED) for e in d.episodes}
    hidden = {e.index for name, d in named.items() if not name.endswith(LABELLED) for e in d.episodes}
    assert shown
    assert hidden
    assert not shown & hidden
    assert "labels" in train(config, stage=stage).losses


def test_video_without_actions_is_all_it_needs(tmp_path: Path) -> None:
    free = write_toy(tmp_path / "data", episodes=3, action_free=True)
    assert train(config_of(free, tmp_path / "run", steps=2)).steps == 2
    config = config_of(free, tmp_path / "labelled")
    config.latent_action.labels.share = 0.5
    with pytest.raises(WamError, match="dataset with actions"):
        LatentActionStage(config)


def test_datasets_with_other_cameras_train_together(toy: Path, tmp_path: Path) -> None:
    config = config_of(toy, tmp_path / "run", steps=3)
    config.data.cameras = ["a", "b", "c"]
    config.data.parts.append(DataPart(root=str(toy), name="again"))
    train(config)
    assert tokenizer_of(tmp_path / "run").config.views == 3


def test_a_collapsed_codebook_stops_the_run_with_a_sentence(toy: Path, tmp_path: Path) -> None:
    config = config_of(toy, tmp_path, steps=8)
    config.latent_action.collapse_after, config.latent_action.collapse_below = 3, 15.9
    with pytest.raises(WamError, match=r"codes used at least as evenly as 15\.9 of 16.*have collapsed"):
        train(config)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1]["step"] < 8
    assert logged[-1]["perplexity"] < 15.9


def test_a_decoder_that_ignores_its_codes_is_warned_about(toy: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="does not listen to the latent actions"):
        train(config_of(toy, tmp_path, steps=1, check_every=1))


def test_no_data_is_one_sentence(toy: Path, tmp_path: Path) -> None:
    config = config_of(toy, tmp_path)
    config.data.parts = []
    with pytest.raises(WamError, match="at least one dataset"):
        LatentActionStage(config)
