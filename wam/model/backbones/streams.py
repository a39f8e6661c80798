"""The pretrained streams of one model: does each backbone fit its config, and what becomes of it in the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from wam.contracts import expected
from wam.model.backbones.adapters import add_adapters
from wam.model.backbones.assembly import take_apart
from wam.model.backbones.ends import PretrainedEnds
from wam.model.backbones.interface import Layer
from wam.model.backbones.load import AnyBackbone, Description, load_backbone
from wam.model.backbones.vlm.decoder import take_apart as take_vlm_apart
from wam.model.backbones.vlm.load import VlmBackbone, VlmDescription
from wam.model.backbones.vlm.scene import SceneEnds
from wam.model.config import ModelConfig
from wam.model.joint import JointTransformer
from wam.model.visibility import VisibilityTable


@dataclass(frozen=True, kw_only=True)
class PretrainedStreams:
    """layers: experts by stream. ends: of these streams, and of those that share their layers. shared: stream -> the stream
    whose layers it runs through. bases: {name, source, revision, sha256, random, architecture} by stream."""

    layers: dict[str, list[Layer]] = field(default_factory=dict)
    ends: dict[str, PretrainedEnds | SceneEnds] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    bases: dict[str, dict[str, Any]] = field(default_factory=dict)


def load_backbones(config: ModelConfig, given: Mapping[str, AnyBackbone]) -> dict[str, AnyBackbone]:
    """Every backbone that the config names, by stream; those given are not loaded."""
    named = {s: c.backbone for s, c in config.streams.items() if c.backbone is not None}
    return {
        s: given[s]
        if s in given
        else load_backbone(b.name, b.weights, source=b.source, revision=b.revision, fps=b.fps, layers=b.layers)
        for s, b in named.items()
    }


def make_pretrained(
    config: ModelConfig,
    backbones: Mapping[str, AnyBackbone],
    *,
    table: VisibilityTable,
    text_width: int,
    latent_channels: int,
    latent_side: int,
) -> PretrainedStreams:
    """Take the backbones apart for the streams that name them. Raises WamError where one does not fit the model."""
    made = PretrainedStreams(shared={s: c.shares for s, c in config.streams.items() if c.shares})
    for s, owner in made.shared.items():
        if owner not in backbones or s != "observation" or owner != "future":
            raise expected("`shares: future` of the observation, where the future has a backbone", got=s, do="mend it")
        if not table.sources(owner, (s,)):
            raise expected(
                f"a visibility table whose {owner} sees the {s} that shares its layers",
                got="one whose does not",
                do="let it see the observation, or remove `shares`, so that the present leads the future's own tokens",
            )
    for s, backbone in backbones.items():
        if isinstance(backbone, VlmBackbone):
            _check_vlm(config, s, backbone.description, table)
            made.bases[s] = {"name": backbone.name, **backbone.provenance, "architecture": backbone.architecture}
            language, made.layers[s] = take_vlm_apart(backbone)
            made.ends[s] = SceneEnds(language, backbone.words, views=config.views, tokens=config.streams[s].tokens)
            continue
        known = backbone.description
        _check(config, s, known, text_width=text_width, latent_channels=latent_channels, latent_side=latent_side)
        sharing = [other for other, owner in made.shared.items() if owner == s]
        if sharing and known.guided:
            raise expected(
                "a future that holds its own first frame, for an image-to-video network",
                got=f"{sharing[0]} sharing its layers",
                do="remove `shares`",
            )
        base = {"name": backbone.name, **backbone.provenance, "architecture": backbone.architecture}
        ends, made.layers[s] = take_apart(backbone)
        W = config.condition_width
        made.ends[s] = PretrainedEnds(
            ends, views=config.views, condition_width=W, leads=not sharing, picture=backbone.picture
        )
        for other in sharing:
            made.ends[other] = PretrainedEnds(ends, views=config.views, condition_width=W, leads=False, owner=False)
        made.bases[s] = base
    return made


def _check(
    config: ModelConfig, stream: str, known: Description, *, text_width: int, latent_channels: int, latent_side: int
) -> None:
    c = config.streams[stream]
    if stream != "future":
        raise expected(
            "a backbone for the future stream", got=f"one for {stream}", do="see `shares` for the observation"
        )
    _check_shape(config, known)
    if c.width not in (0, known.width) or c.tubelet != 1 or c.predicts != "velocity":
        raise expected(
            f"model.streams.{stream} with predicts velocity, tubelet 1 and no width of its own",
            got=f"{c.predicts}, {c.tubelet} and {c.width}",
            do="set them: the backbone was trained so",
        )
    if config.occupancy.loss_weight:
        raise expected(
            "a native future stream for voxels", got="a pretrained one", do="set model.occupancy.loss_weight=0"
        )
    if latent_channels != known.latent_channels:
        raise expected(
            f"a video tokenizer of {known.latent_channels} channels, on whose latents the backbone was trained",
            got=f"one of {latent_channels}",
            do="set `model.video` to its own VAE (kind: diffusers, subfolder: vae of its repository)",
        )
    if "text" not in config.streams or text_width != known.text_width:
        raise expected(
            f"a text stream whose encoder gives features of width {known.text_width}, which the backbone reads",
            got=text_width if "text" in config.streams else "no text stream",
            do="set `model.text` to its own encoder (kind: pretrained, subfolder: text_encoder of its repository)",
        )
    if any(latent_side % side for side in known.patch[1:]):
        raise expected(f"latents whose sides {known.patch[1:]} divide", got=latent_side, do="change model.image_size")


def _check_shape(config: ModelConfig, known: Description | VlmDescription) -> None:
    shape = {"depth": known.layers, "heads": known.heads, "head_dim": known.head_dim}
    if wrong := {name: value for name, value in shape.items() if getattr(config, name) != value}:
        raise expected(
            "a model as deep as its backbone, of as many heads of the same size",
            got={name: getattr(config, name) for name in wrong},
            do="set " + ", ".join(f"model.{name}={value}" for name, value in wrong.items()),
        )


def _check_vlm(config: ModelConfig, stream: str, known: VlmDescription, table: VisibilityTable) -> None:
    if stream != "observation":
        raise expected(
            "a vision-language model for the observation stream",
            got=f"one for {stream}",
            do=f"move it to model.streams.observation, and name a video transformer for {stream} or none",
        )
    _check_shape(config, known)
    if config.streams[stream].width not in (0, known.width):
        raise expected(
            "no width of its own for a stream with a backbone",
            got=config.streams[stream].width,
            do=f"remove model.streams.{stream}.width",
        )
    if config.occupancy.loss_weight:
        raise expected(
            "a native observation for voxels", got="a vision-language model", do="set model.occupancy.loss_weight=0"
        )
    alone = table.sources(stream, config.streams) == ((stream, False),)
    if not alone or table.modulators(stream, config.streams) or stream in table.causal:
        raise expected(
            "an observation that reads itself alone and that nothing modulates, as its backbone was trained",
            got="a visibility table that says otherwise",
            do="remove the text stream, whose sentence the backbone reads, or set model.visibility.sees.observation="
            "{observation: yes} and model.visibility.modulated_by.observation=[]",
        )


def settle(config: ModelConfig, transformer: JointTransformer, ends: Mapping[str, nn.Module]) -> None:
    """Freeze what the config wants frozen, and put adapters where it wants them. ends: of the pretrained streams."""
    for s, c in config.streams.items():
        if c.lora is not None and s not in transformer.experts:
            raise expected("adapters on a stream with experts of its own", got=s, do=f"remove model.streams.{s}.lora")
        if c.backbone is not None and (c.backbone.frozen or c.lora is not None):
            transformer.experts[s].requires_grad_(False)
            _own(ends[s]).requires_grad_(False)
        if c.lora is not None:
            add_adapters(transformer.experts[s], c.lora, stream=s)


def _own(ends: nn.Module) -> nn.Module:
    assert isinstance(ends, PretrainedEnds | SceneEnds)
    return ends.pretrained
