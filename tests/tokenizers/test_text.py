"""Text encoders: hashed and learned, or frozen and pretrained (here tiny random networks saved to a folder)."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.tokenizers.text import (
    PretrainedTextEncoder,
    SmallTextEncoder,
    TextConfig,
    TextEncoder,
    make_text_encoder,
)
from wam.tokenizers.words import UNKNOWN_WORD, word_ids

SENTENCES = ("open the faucet", "close the faucet", "", "open the faucet", "push the red button down")
WORDS = ["<pad>", "</s>", "<unk>", "open", "close", "the", "faucet", "push", "red", "button"]


@pytest.fixture
def small() -> SmallTextEncoder:
    torch.manual_seed(0)
    return SmallTextEncoder(width=16, heads=2)


class TestSmall:
    def test_gives_features_and_a_mask_of_the_longest_sentence(self, small: SmallTextEncoder) -> None:
        features, mask = small(SENTENCES)
        assert features.shape == (5, 5, 16)
        assert mask.sum(dim=1).tolist() == [3, 3, 1, 3, 5]
        assert (features[~mask] == 0).all()

    def test_features_do_not_depend_on_the_company_of_a_sentence(self, small: SmallTextEncoder) -> None:
        together, mask = small(SENTENCES)
        for row, sentence in enumerate(SENTENCES):
            alone, _ = small([sentence])
            torch.testing.assert_close(together[row][mask[row]], alone[0])

    def test_word_order_and_words_matter_but_case_does_not(self, small: SmallTextEncoder) -> None:
        features, _ = small(["open the faucet", "faucet the open", "close the faucet", "Open THE faucet!"])
        assert not torch.allclose(features[0].mean(0), features[1].mean(0))
        assert not torch.allclose(features[0], features[2])
        assert torch.equal(features[0], features[3])

    def test_out_of_training_a_word_never_met_is_the_unknown_word(self, small: SmallTextEncoder) -> None:
        small(["turn the faucet on", "turn the faucet off"])
        small.eval()
        features, _ = small(["switch the tap on", f"{UNKNOWN_WORD} the {UNKNOWN_WORD} on", "switch the tap off"])
        torch.testing.assert_close(features[0], features[1])
        assert not torch.allclose(features[0], features[2])
        met, _ = small(["turn the faucet on", "turn the faucet on"])
        small.train()
        torch.testing.assert_close(met, small(["turn the faucet on", "turn the faucet on"])[0])

    def test_what_was_met_is_kept_with_the_weights(self, small: SmallTextEncoder) -> None:
        small(["open the faucet"])
        other = SmallTextEncoder(width=16, heads=2)
        other.load_state_dict(small.state_dict())
        assert torch.equal(other.met, small.met)
        assert int(other.met.sum()) == 6

    def test_an_encoder_that_met_nothing_takes_words_as_they_come(self, small: SmallTextEncoder) -> None:
        features, _ = small.eval()(["open the faucet", "close the faucet"])
        assert not torch.allclose(features[0], features[1])

    def test_the_empty_sentence_is_a_learned_token(self, small: SmallTextEncoder) -> None:
        features, _ = small([""])
        features.square().sum().backward()
        assert small.embedding.weight.grad is not None
        assert small.embedding.weight.grad[1].abs().sum() > 0

    def test_hashes_are_the_same_in_every_process(self) -> None:
        code = "from wam.tokenizers.words import word_ids; print(word_ids('open the faucet', 2048, 16))"
        other = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "7"},
        )
        assert other.stdout.strip() == str(word_ids("open the faucet", 2048, 16))

    def test_the_words_of_many_tasks_share_no_vector(self) -> None:
        words = {f"{verb}{noun}" for verb in ("open", "close", "push", "pull", "reach") for noun in range(200)}
        assert len({word_ids(word, 2048, 16) for word in words}) == len(words)

    @given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
    def test_any_text_has_at_least_one_token_and_ids_in_range(self, sentences: list[str]) -> None:
        for sentence in sentences:
            ids = word_ids(" ".join(sentence.split()[:16])[:30], 64, 16)
            assert len(ids) >= 1
            assert all(1 <= i < 64 for pair in ids for i in pair)

    def test_a_cut_sentence_is_warned_about(self) -> None:
        with pytest.warns(UserWarning, match="raise max_words"):
            assert len(word_ids("one two three four", 64, 2)) == 2

    def test_a_string_in_place_of_a_list_is_refused(self, small: SmallTextEncoder) -> None:
        with pytest.raises(WamError, match="a sequence of sentences"):
            small("open the faucet")

    def test_wrong_sizes_are_refused(self) -> None:
        with pytest.raises(WamError, match="width 10, heads 4"):
            SmallTextEncoder(width=10)


def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=12
    )


def tiny_config(kind: str) -> Any:
    import transformers as hf

    size: dict[str, Any] = {"vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    if kind in ("t5", "umt5"):
        t5: dict[str, Any] = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2, **size}
        return hf.T5Config(**t5) if kind == "t5" else hf.UMT5Config(**t5)
    text: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        **size,
    }
    text["max_position_embeddings"] = 12
    return hf.CLIPTextConfig(**text) if kind == "clip" else hf.SiglipTextConfig(**text)


@pytest.fixture(scope="module", params=["t5", "umt5", "clip", "siglip"])
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PretrainedTextEncoder]:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    encoder = PretrainedTextEncoder.from_config(tiny_config(request.param), tokenizer())
    encoder.save_pretrained(folder)
    return folder, encoder


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5-alone")
    PretrainedTextEncoder.from_config(tiny_config("t5"), tokenizer()).save_pretrained(folder)
    return folder


class TestPretrained:
    def test_loads_what_was_saved_value_for_value(self, saved: tuple[Path, PretrainedTextEncoder]) -> None:
        folder, original = saved
        loaded = make_text_encoder(TextConfig(kind="pretrained", name=str(folder)))
        assert isinstance(loaded, PretrainedTextEncoder)
        features, mask = loaded(SENTENCES)
        assert loaded.width == features.shape[-1] == 16
        assert mask.sum(dim=1).tolist() == [4, 4, 1, 4, 6]
        torch.testing.assert_close(features, original(SENTENCES)[0])

    def test_features_are_the_networks_own(self, saved: tuple[Path, PretrainedTextEncoder]) -> None:
        folder, encoder = saved
        tokens = encoder.tokenizer(["open the faucet"], return_tensors="pt")
        if "siglip" in folder.name:
            tokens = encoder.tokenizer(["open the faucet"], return_tensors="pt", padding="max_length", max_length=12)
            del tokens["attention_mask"]
        truth = encoder.network(input_ids=tokens["input_ids"]).last_hidden_state[:, :4]
        torch.testing.assert_close(encoder(["open the faucet"])[0], truth)

    def test_features_do_not_depend_on_company_or_on_the_cache(self, saved: tuple[Path, PretrainedTextEncoder]) -> None:
        _, encoder = saved
        fresh = copy.deepcopy(encoder)
        fresh._features = {}
        together, mask = fresh(SENTENCES)
        again, _ = fresh(SENTENCES)
        assert torch.equal(together, again)
        fresh._features = {}
        for row, sentence in enumerate(SENTENCES):
            torch.testing.assert_close(fresh([sentence])[0][0], together[row][mask[row]])

    def test_it_is_frozen_and_no_part_of_a_checkpoint(self, saved: tuple[Path, PretrainedTextEncoder]) -> None:
        _, encoder = saved
        assert list(encoder.parameters()) == []
        assert encoder.state_dict() == {}
        assert not encoder(["open"])[0].requires_grad
        assert copy.deepcopy(encoder).network is encoder.network

    def test_it_follows_the_owner_to_another_precision(self, t5: Path) -> None:
        owner = torch.nn.Sequential(PretrainedTextEncoder(str(t5)))
        owner(["open"])
        owner.to(torch.bfloat16)
        encoder = owner[0]
        assert isinstance(encoder, PretrainedTextEncoder)
        assert encoder.dtype == torch.bfloat16
        assert encoder(["open"])[0].dtype == torch.float32

    def test_sentences_are_computed_once(self, t5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder = PretrainedTextEncoder(str(t5))
        encoder(["open", "close"])
        monkeypatch.setattr(encoder, "_compute", lambda sentences: pytest.fail("computed again"))
        assert encoder(["close", "open", "open"])[0].shape[0] == 3

    def test_provenance_says_random_until_real_weights_are_named(self, t5: Path) -> None:
        encoder = PretrainedTextEncoder(str(t5))
        assert encoder.provenance == {"source": "t5 from its config", "revision": None, "random": True}
        (t5 / "provenance.json").rename(t5 / "moved.json")
        assert PretrainedTextEncoder(str(t5), "v1").provenance == {"source": str(t5), "revision": "v1", "random": False}
        (t5 / "moved.json").rename(t5 / "provenance.json")

    def test_a_pipeline_folder_is_read_by_subfolder(self, t5: Path, tmp_path: Path) -> None:
        encoder = PretrainedTextEncoder(str(t5))
        encoder.network.save_pretrained(tmp_path / "text_encoder")
        encoder.tokenizer.save_pretrained(tmp_path / "tokenizer")
        nested = PretrainedTextEncoder(str(tmp_path), subfolder="text_encoder")
        torch.testing.assert_close(nested(SENTENCES)[0], encoder(SENTENCES)[0])

    def test_a_padded_sentence_attends_to_its_padding(self, t5: Path) -> None:
        encoder = make_text_encoder(TextConfig(kind="pretrained", name=str(t5), max_tokens=9, padded=True))
        assert isinstance(encoder, PretrainedTextEncoder)
        tokens = encoder.tokenizer("open the faucet", return_tensors="pt", padding="max_length", max_length=9)
        truth = encoder.network(input_ids=tokens["input_ids"]).last_hidden_state[:, :4]
        features, mask = encoder(["open the faucet"])
        torch.testing.assert_close(features, truth)
        assert mask.tolist() == [[True] * 4]
        assert not torch.allclose(features, PretrainedTextEncoder(str(t5))(["open the faucet"])[0])

    def test_a_tokenizer_without_special_tokens_still_gives_the_empty_sentence_a_token(self) -> None:
        from tokenizers.processors import TemplateProcessing

        bare = tokenizer()
        bare._tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
        encoder = PretrainedTextEncoder.from_config(tiny_config("t5"), bare)
        assert encoder([""])[1].tolist() == [[True]]
        assert encoder(["", "open the"])[1].tolist() == [[True, False], [True, True]]


class TestPretrainedFaults:
    def refused(self, *arguments: Any, **options: Any) -> str:
        with pytest.raises(WamError) as caught:
            PretrainedTextEncoder(*arguments, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_a_hub_name_that_is_not_here_says_what_to_download(self, monkeypatch: pytest.MonkeyPatch) -> None:
        message = self.refused("google/no-such-t5", "abc")
        assert "hf download google/no-such-t5 --revision abc" in message
        assert "hub" in message

    def test_a_folder_that_is_not_there_names_near_ones(self, tmp_path: Path) -> None:
        (tmp_path / "umt5-small").mkdir()
        assert "umt5-small" in self.refused(str(tmp_path / "umt5-smal"))

    def test_a_folder_without_weights(self, t5: Path, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text((t5 / "config.json").read_text())
        assert "safetensors weights, got a folder with config.json" in self.refused(str(tmp_path))

    def test_missing_weights_are_never_random(self, t5: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        for file in t5.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        weights = load_file(tmp_path / "model.safetensors")
        name = next(key for key in weights if "SelfAttention.q" in key)
        del weights[name]
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        assert "1 missing" in self.refused(str(tmp_path))

    def test_truncated_weights(self, t5: Path, tmp_path: Path) -> None:
        for file in t5.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        whole = (tmp_path / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        assert "download or copy the whole folder again" in self.refused(str(tmp_path))

    def test_another_kind_of_network_is_refused_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
        assert "umt5" in self.refused(str(tmp_path))

    def test_a_nameless_config_is_refused(self) -> None:
        with pytest.raises(WamError, match="set `name`"):
            make_text_encoder(TextConfig(kind="pretrained"))


def test_the_default_encoder_is_small_and_learned() -> None:
    encoder = make_text_encoder(TextConfig())
    assert isinstance(encoder, SmallTextEncoder)
    assert isinstance(encoder, TextEncoder)
    assert encoder.width == 128
    assert sum(p.numel() for p in encoder.parameters()) < 500_000
