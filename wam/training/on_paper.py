"""A model of pretrained parts counted from shapes alone, on the meta device, which stores and computes nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.model.backbones.companions import companions
from wam.model.backbones.config import BackboneConfig
from wam.model.backbones.load import AnyBackbone, load_backbone
from wam.model.backbones.vlm.load import VlmBackbone
from wam.model.config import ModelConfig
from wam.model.joint import JointLayer, JointTransformer
from wam.model.synthetic import synthetic_batch
from wam.model.wam import WorldActionModel
from wam.tokenizers.text import TextEncoder
from wam.tokenizers.video import VideoTokenizer
from wam.training.cluster import Workload
from wam.training.config import TrainConfig
from wam.training.count import count_flops, saved_bytes
from wam.training.objective import joint_losses
from wam.training.without_data import WithoutData

STAGES = ("joint", "pretrain", "posttrain")
WINDOWS = 2
HALF_SHARE = 0.6
"""Of the bytes that float32 keeps for the backward pass, how many bfloat16 does: norms and residuals stay in float32."""


class PaperText(TextEncoder):
    """Features of the right shape and no numbers."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.width, self.tokens = width, tokens
        self.provenance = {"source": "shapes", "revision": None, "random": True}

    def encode(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        size = (len(sentences), self.tokens)
        return torch.empty(*size, self.width, device="meta"), torch.ones(size, dtype=torch.bool, device="meta")


class PaperVideo(VideoTokenizer):
    """Latents of the right shape and no numbers."""

    def __init__(self, channels: int, spatial: int, temporal: int) -> None:
        super().__init__()
        self.channels, self.spatial, self.temporal = channels, spatial, temporal
        self.provenance = {"source": "shapes", "revision": None, "random": True}

    def encode(self, frames: Tensor) -> Tensor:
        self.check_frames(frames)
        return torch.empty(*frames.shape[:2], *self.latent_shape(*frames.shape[2:5]), device="meta")

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError("a plan decodes nothing")


class PaperPictures(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.empty(len(pictures), 257, self.width, device="meta")


def is_on_paper(config: TrainConfig) -> bool:
    """Does the model have a pretrained backbone, whose weights a plan does not wait for?"""
    found = (stream.backbone for stream in config.model.streams.values())
    return any(backbone is not None and backbone.weights != "tiny" for backbone in found)


def make_on_paper(config: TrainConfig) -> WithoutData:
    """What a stage trains, on the meta device, with a batch of `WINDOWS` windows. Raises WamError where the model has no
    backbone of the catalogue or the stage is none of `STAGES`."""
    if config.stage not in STAGES:
        raise expected(f"a stage among {', '.join(STAGES)} for a pretrained backbone", got=config.stage, do="plan one")
    model_config = copy.deepcopy(config.model)
    backbones = {s: _backbone(c.backbone) for s, c in model_config.streams.items() if c.backbone is not None}
    with torch.device("meta"):
        model = WorldActionModel(
            model_config,
            **_companions(model_config, backbones),
            backbones=backbones,
        )
    batch = _on_meta(synthetic_batch(model_config, WINDOWS, seed=config.seed))

    def losses(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return joint_losses(model, batch, generator=generator)

    without = ("action", "action_mask", "state") if config.stage == "pretrain" else ()
    return WithoutData(module=model.to("meta").train(), losses=losses, batch=batch.without("play", *without))


def _companions(config: ModelConfig, backbones: Mapping[str, AnyBackbone]) -> dict[str, Any]:
    """In the place of the text encoder and VAE that a video transformer needs beside it; a vision-language model needs none."""
    for backbone in backbones.values():
        if not isinstance(backbone, VlmBackbone):
            known = backbone.description
            return {
                "text": PaperText(known.text_width, min(config.text.max_tokens, known.text_tokens)),
                "video": PaperVideo(known.latent_channels, known.spatial, known.temporal),
            }
    return {}


def _backbone(config: BackboneConfig) -> AnyBackbone:
    """Full shapes, taken for the pretrained weights that they will be."""
    made = load_backbone(config.name, "meta", fps=config.fps, layers=config.layers)
    if isinstance(made, VlmBackbone):
        return replace(made, provenance={**made.provenance, "random": False})
    width = made.description.image_width
    pictures = PaperPictures(width) if width else None
    return replace(made, provenance={**made.provenance, "random": False}, picture=pictures)  # type: ignore[arg-type]


def _on_meta(batch: Batch) -> Batch:
    return batch.replace(**{name: value.to("meta") for name, value in batch.tensors().items() if name != "play"})


def workload(config: TrainConfig, made: WithoutData) -> Workload:
    """The numbers of a model on the meta device, or on a real one, for `wam.training.cluster`."""
    model, batch, module = config.model, made.batch, made.module
    parameters = sum(p.numel() for p in module.parameters())
    layered = _layered(module)
    half = config.precision != "fp32"
    on_paper = batch.images.is_meta
    precision = "fp32" if on_paper else config.precision  # autocast has no meta device
    share = HALF_SHARE if half and on_paper else 1.0
    kept = {}
    for checkpointing in (False, True):
        _set_checkpointing(module, checkpointing)
        kept[checkpointing] = share * saved_bytes(made.losses, batch, precision, but=module) / batch.size
    chosen = model.checkpointing == "blocks"
    _set_checkpointing(module, chosen)
    return Workload(
        parameters=parameters,
        trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        averaged=sum(t.numel() for t in module.state_dict().values()),
        layer=layered / max(1, model.depth),
        beside=parameters - layered,
        companions=sum(sum(companions(c.backbone.name).values()) for c in model.streams.values() if c.backbone),
        moment=1 if config.optimizer.kind == "adamw8bit" else 4,
        flops=count_flops(made.losses, batch, precision),
        activations=kept[chosen],
        inside=(kept[False] - kept[True]) / max(1, model.depth) if chosen else 0.0,
        passed=kept[False],
        half=half,
    )


def _layered(module: nn.Module) -> int:
    found = [part for part in module.modules() if isinstance(part, JointTransformer)]
    return sum(p.numel() for part in found for p in part.parameters())


def _set_checkpointing(module: nn.Module, on: bool) -> None:
    for part in module.modules():
        if isinstance(part, JointLayer):
            part.checkpointing = on
