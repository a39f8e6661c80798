"""The pretrained video transformers known by name: where they are kept, and their shapes, for use without their files.

Shapes are those of each repository's `transformer/config.json`. The tiny ones differ in size alone, so that latents,
conditions and every branch of the forward pass are those of the original.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wam.contracts import WamError, expected
from wam.model.backbones.vlm.catalogue import VLMS
from wam.tokenizers.text import TextConfig
from wam.tokenizers.video import VideoConfig

WAN, COSMOS, LTX = "WanTransformer3DModel", "CosmosTransformer3DModel", "LTXVideoTransformer3DModel"
FAMILIES = {WAN: "wan", COSMOS: "cosmos", LTX: "ltx"}


@dataclass(frozen=True, kw_only=True)
class Known:
    """repository: on the Hugging Face hub, in diffusers' format; the transformer lies in its folder `transformer`, its VAE in
    `vae`, its text encoder in `text_encoder`. config: arguments of the class `kind` of diffusers. fps: frames a second that
    its pipeline assumes, where the network is told."""

    repository: str
    kind: str
    config: Mapping[str, Any]
    tiny: Mapping[str, Any]
    revision: str | None = None
    fps: float = 0.0
    text_tokens: int = 512

    @property
    def tiny_config(self) -> dict[str, Any]:
        return {**self.config, **self.tiny}

    @property
    def vae(self) -> VideoConfig:
        """The video tokenizer whose latents it was trained on."""
        return VideoConfig(kind="diffusers", name=self.repository, revision=self.revision, subfolder="vae")

    @property
    def text_encoder(self) -> TextConfig:
        """The text encoder that its cross-attention was trained on."""
        return TextConfig(
            kind="pretrained",
            name=self.repository,
            revision=self.revision,
            subfolder="text_encoder",
            max_tokens=self.text_tokens,
            padded=self.kind == LTX,
        )


_WAN = {
    "patch_size": (1, 2, 2),
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}
_WAN_14B = {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824}
_WAN_I2V = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
_TINY = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2}
_TINY_WAN = {**_TINY, "ffn_dim": 64, "text_dim": 32, "rope_max_seq_len": 64}
_TINY_WAN_I2V = {**_TINY_WAN, "image_dim": 32, "added_kv_proj_dim": 32}

_COSMOS = {
    "in_channels": 17,
    "out_channels": 16,
    "num_attention_heads": 16,
    "attention_head_dim": 128,
    "num_layers": 28,
    "mlp_ratio": 4.0,
    "text_embed_dim": 1024,
    "adaln_lora_dim": 256,
    "max_size": (128, 240, 240),
    "patch_size": (1, 2, 2),
    "rope_scale": (1.0, 3.0, 3.0),
    "concat_padding_mask": True,
    "extra_pos_embed_type": None,
}
_COSMOS_2_5 = {
    "use_crossattn_projection": True,
    "crossattn_proj_in_channels": 100352,
    "encoder_hidden_states_channels": 1024,
}
_TINY_COSMOS = {**_TINY, "mlp_ratio": 2.0, "text_embed_dim": 32, "adaln_lora_dim": 8}

_LTX = {
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "patch_size_t": 1,
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "cross_attention_dim": 2048,
    "num_layers": 28,
    "activation_fn": "gelu-approximate",
    "qk_norm": "rms_norm_across_heads",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": 4096,
    "attention_bias": True,
    "attention_out_bias": True,
}

CATALOGUE: dict[str, Known] = {
    "wan2.1-t2v-1.3b": Known(
        repository="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        kind=WAN,
        config={**_WAN, "num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
        tiny=_TINY_WAN,
    ),
    "wan2.1-t2v-14b": Known(
        repository="Wan-AI/Wan2.1-T2V-14B-Diffusers", kind=WAN, config={**_WAN, **_WAN_14B}, tiny=_TINY_WAN
    ),
    "wan2.1-i2v-14b": Known(
        repository="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        kind=WAN,
        config={**_WAN, **_WAN_14B, **_WAN_I2V},
        tiny=_TINY_WAN_I2V,
    ),
    "wan2.1-i2v-14b-720p": Known(
        repository="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        kind=WAN,
        config={**_WAN, **_WAN_14B, **_WAN_I2V},
        tiny=_TINY_WAN_I2V,
    ),
    "wan2.2-ti2v-5b": Known(
        repository="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        kind=WAN,
        config={
            **_WAN,
            "in_channels": 48,
            "out_channels": 48,
            "num_attention_heads": 24,
            "num_layers": 30,
            "ffn_dim": 14336,
        },
        tiny=_TINY_WAN,
    ),
    "cosmos-predict2-2b": Known(
        repository="nvidia/Cosmos-Predict2-2B-Video2World", kind=COSMOS, config=_COSMOS, tiny=_TINY_COSMOS, fps=16.0
    ),
    "cosmos-predict2.5-2b": Known(
        repository="nvidia/Cosmos-Predict2.5-2B",
        revision="diffusers/base/post-trained",
        kind=COSMOS,
        config={**_COSMOS, **_COSMOS_2_5},
        tiny={**_TINY_COSMOS, "crossattn_proj_in_channels": 32, "encoder_hidden_states_channels": 32},
    ),
    "ltx-video": Known(
        repository="Lightricks/LTX-Video",
        kind=LTX,
        config=_LTX,
        tiny={**_TINY, "cross_attention_dim": 32, "caption_channels": 32},
        fps=25.0,
        text_tokens=128,
    ),
}


def unknown_name(name: str) -> WamError:
    """The error for a name that is neither here nor a folder nor a hub name, with those that read alike."""
    near = difflib.get_close_matches(name.lower(), [*CATALOGUE, *VLMS], n=2, cutoff=0.4)
    hint = f"perhaps {' or '.join(near)}" if near else "name one of them"
    return expected(
        f"a backbone among {', '.join([*CATALOGUE, *VLMS])}, or a folder or hub name in diffusers' format",
        got=repr(name),
        do=hint,
    )
