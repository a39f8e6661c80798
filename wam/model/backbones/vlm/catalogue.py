"""The vision-language models known by name: where they are kept, how they are prompted, and their shapes.

Shapes are those of each repository's `config.json`, for use without their files; a pretrained one brings its own. The tiny ones
differ in size alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SMOLVLM, PALIGEMMA = "SmolVLMForConditionalGeneration", "PaliGemmaForConditionalGeneration"
FAMILIES = {SMOLVLM: "smolvlm", PALIGEMMA: "paligemma"}
CONFIGS = {SMOLVLM: "SmolVLMConfig", PALIGEMMA: "PaliGemmaConfig"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What stands before all pictures, around each, before and after the sentence, and before action tokens, as its training
    had it; names in angle brackets are tokens of the model's own vocabulary. reserved: ids at the vocabulary's end that have
    another use; action tokens take rarely used ones before them, as in pi0-FAST."""

    before: str
    opened: str
    closed: str
    asked: str
    after: str
    acting: str
    reserved: int

    @property
    def special(self) -> tuple[str, ...]:
        """The tokens of the vocabulary that it names."""
        told = "".join((self.before, self.opened, self.closed, self.asked, self.after, self.acting))
        return tuple(dict.fromkeys(re.findall(r"<[^<>]+>", told)))


LAYOUTS = {
    "smolvlm": Layout(
        before="<|im_start|>User:",
        opened="<fake_token_around_image><global-img>",
        closed="<fake_token_around_image>",
        asked="",
        after="<end_of_utterance>\nAssistant:",
        acting=" Action:",
        reserved=128,
    ),
    "paligemma": Layout(before="", opened="", closed="", asked="<bos>", after="\n", acting="Action: ", reserved=192),
}
SPECIAL = tuple(token for layout in LAYOUTS.values() for token in layout.special)


@dataclass(frozen=True, kw_only=True)
class KnownVlm:
    """repository: on the Hugging Face hub, in transformers' format. config: of the class `kind`; text, vision: of its two
    halves."""

    repository: str
    kind: str
    config: Mapping[str, Any]
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    revision: str | None = None

    @property
    def full(self) -> dict[str, Any]:
        """The arguments of the class's config."""
        return {**self.config, "text_config": dict(self.text), "vision_config": dict(self.vision)}

    @property
    def tiny(self) -> dict[str, Any]:
        tiny = _TINY[self.kind]
        return {
            **self.full,
            **tiny["config"],
            "text_config": {**self.text, **tiny["text"]},
            "vision_config": {**self.vision, **tiny["vision"]},
        }


_LLAMA = {"model_type": "llama", "vocab_size": 49280, "rms_norm_eps": 1e-5, "pad_token_id": 2, "head_dim": 64}
_SIGLIP_BASE = {
    "model_type": "smolvlm_vision",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
_SIGLIP_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}
_SMOL = {"image_token_id": 49190, "scale_factor": 4}
_GEMMA = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 257216,
}
_TINY_TEXT = {
    "vocab_size": 640,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
_TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_TINY: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    SMOLVLM: {"config": {"image_token_id": 300, "scale_factor": 2}, "text": _TINY_TEXT, "vision": _TINY_VISION},
    PALIGEMMA: {
        "config": {"image_token_index": 300, "vocab_size": 640, "projection_dim": 32, "hidden_size": 32},
        "text": _TINY_TEXT,
        "vision": {**_TINY_VISION, "projection_dim": 32},
    },
}

VLMS: dict[str, KnownVlm] = {
    "smolvlm2-256m": KnownVlm(
        repository="HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        kind=SMOLVLM,
        config=_SMOL,
        text={
            **_LLAMA,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        },
        vision=_SIGLIP_BASE,
    ),
    "smolvlm2-500m": KnownVlm(
        repository="HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        kind=SMOLVLM,
        config=_SMOL,
        text={
            **_LLAMA,
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
        },
        vision=_SIGLIP_BASE,
    ),
    "smolvlm2-2.2b": KnownVlm(
        repository="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        kind=SMOLVLM,
        config={**_SMOL, "scale_factor": 3},
        text={
            **_LLAMA,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
        },
        vision={"model_type": "smolvlm_vision", **_SIGLIP_SO400M, "image_size": 384},
    ),
    "paligemma-3b": KnownVlm(
        repository="google/paligemma-3b-pt-224",
        kind=PALIGEMMA,
        config={"image_token_index": 257152, "vocab_size": 257216, "projection_dim": 2048, "hidden_size": 2048},
        text=_GEMMA,
        vision={"model_type": "siglip_vision_model", **_SIGLIP_SO400M, "image_size": 224, "vision_use_head": False},
    ),
}
