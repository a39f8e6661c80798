"""The joint objective: which conditionals run together, and which windows the passes with video run on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.model.conftest import make_batch, make_model
from wam.contracts import Batch, WamError
from wam.model.config import ModelConfig, default_conditionals
from wam.tokenizers.words import UNKNOWN_WORD
from wam.training.objective import group_conditionals, joint_losses, scrambled, video_rows


def losses(model: object, batch: Batch) -> dict[str, float]:
    found = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    return {name: float(value) for name, value in found.items()}


def test_conditionals_that_keep_the_same_streams_run_together() -> None:
    groups = group_conditionals(default_conditionals(), ["future", "action"])
    assert [[row.name for row in group.rows] for group in groups] == [
        ["policy"],
        ["forward_dynamics", "inverse_dynamics", "imagine", "joint"],
    ]


@pytest.mark.parametrize(
    ("share", "rows"), [(1.0, [0, 1, 2, 3, 4, 5]), (0.67, [0, 1, 3, 4]), (0.5, [1, 3, 4]), (0.33, [1, 3]), (0.01, [1])]
)
def test_passes_with_video_take_play_first(share: float, rows: list[int]) -> None:
    play = torch.tensor([False, True, False, True, True, False])
    assert video_rows(play, share).tolist() == rows


@torch.no_grad()
def test_a_window_left_to_the_policy_teaches_no_video() -> None:
    model = make_model(video_share=0.5)
    batch = make_batch(4).replace(play=torch.tensor([False, True, False, True]))
    assert batch.future is not None
    before = losses(model, batch)
    unread, read = batch.future.clone(), batch.future.clone()
    unread[[0, 2]] = 255 - unread[[0, 2]]
    read[1] = 255 - read[1]
    assert losses(model, batch.replace(future=unread)) == before
    assert losses(model, batch.replace(future=read)) != before
    acted = batch.replace(action=batch.action.flip(1))  # type: ignore[union-attr]
    assert losses(model, acted)["action_alone"] != before["action_alone"]


def test_words_are_scrambled_at_their_rate_and_only_where_there_are_several() -> None:
    generator = torch.Generator().manual_seed(0)
    sentence = "turn the faucet on"
    assert scrambled(sentence, 0.0, generator) == sentence
    assert scrambled("play", 1.0, generator) == "play"
    drawn = [scrambled(sentence, 0.25, generator).split() for _ in range(400)]
    kept = sum(word == own for words in drawn for word, own in zip(words, sentence.split(), strict=True))
    assert 0.7 < kept / 1600 < 0.8
    assert {word for words in drawn for word in words} - set(sentence.split()) == {UNKNOWN_WORD}


@torch.no_grad()
def test_only_a_text_encoder_that_is_learned_here_hears_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make_model(word_noise=1.0, text_dropout=0.0), make_batch(4)
    batch = batch.replace(instruction=("turn the faucet on",) * 4)
    heard: list[str] = []
    stem = model.network.stems["text"]
    monkeypatch.setattr(stem, "forward", lambda s, own=stem.forward: (heard.extend(s), own(s))[1])
    losses(model, batch)
    assert all(set(sentence.split()).isdisjoint({"turn", "the", "faucet", "on"}) for sentence in heard)
    heard.clear()
    model.config.text = replace(model.config.text, kind="pretrained")
    losses(model, batch)
    assert set(heard) == {"turn the faucet on"}


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_conditional_that_hides_the_state_is_trained_without_it(share: float) -> None:
    model = make_model(state_dropout=0.0, video_share=0.5)
    model.config.conditionals = [row for row in default_conditionals() if row.name in ("policy", "inverse_dynamics")]
    model.config.conditionals[1].hide = {"state": share, "velocity": share}
    batch = make_batch(4).replace(play=torch.tensor([True, True, False, False]))
    before = losses(model, batch)
    assert batch.state is not None
    moved = batch.state.clone()
    moved[:2] += 1.0  # the windows that the passes with video run on
    after = losses(model, batch.replace(state=moved))
    assert (after["action"] == before["action"]) == bool(share)
    moved = batch.state.clone()
    moved[2:] += 1.0  # those left to the policy keep theirs
    assert losses(model, batch.replace(state=moved))["action_alone"] != before["action_alone"]


@torch.no_grad()
def test_rows_of_a_context_are_denoised_as_they_are_among_the_others() -> None:
    model = make_model()
    batch = model.normalized(make_batch(4))
    signals = model.signals(batch)
    context, rows = model.network.context(batch), torch.tensor([3, 1])
    clocks = {s: torch.linspace(0.2, 1, 4) for s in signals}
    whole = model.network.denoise(context, signals, clocks)
    part = model.network.denoise(
        context.take(rows), {s: x[rows] for s, x in signals.items()}, {s: c[rows] for s, c in clocks.items()}
    )
    for s in signals:
        torch.testing.assert_close(part[s], whole[s][rows], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(WamError, match="video_share"):
        ModelConfig(video_share=share).validate()
