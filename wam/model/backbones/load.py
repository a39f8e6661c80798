"""`load_backbone`: a pretrained video transformer of diffusers, what it is made of, and where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wam.contracts import expected
from wam.model.backbones.catalogue import CATALOGUE, COSMOS, FAMILIES, LTX, WAN, Known, unknown_name
from wam.model.backbones.config import Weights
from wam.model.backbones.picture import PictureReader
from wam.model.backbones.vlm.catalogue import FAMILIES as VLM_FAMILIES
from wam.model.backbones.vlm.catalogue import VLMS
from wam.model.backbones.vlm.load import VlmBackbone, build_vlm, is_vlm, load_vlm
from wam.model.backbones.weights import commit_of, files_read, fingerprint
from wam.tokenizers.frozen import not_on_disk, read_provenance, refuse_missing

FOLDER = "transformer"
"""Where a diffusers pipeline keeps its transformer."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a video transformer takes and is made of.

    width D, heads N of head_dim, layers. latent_channels: c of a latent, in and out. patch: latents (t, h, w) joined in a
    token. text_width: of the features that its cross-attention reads; text_tokens: how many it was trained to read, the rest
    being zeros, or masked (`text_masked`). Its time step is a clock times clock_scale; per_frame: it was trained with a clock
    for each frame, so that given frames are clean among noisy ones. guided: it takes the latents of the first frame, padded
    with grey ones, in channels of their own; image_width: of the picture features that it reads beside the text, or 0.
    spatial, temporal: pixels and frames in a latent of its VAE. fps: frames a second that it is told, 0 if it is not.
    """

    family: str
    width: int
    heads: int
    head_dim: int
    layers: int
    latent_channels: int
    patch: tuple[int, int, int]
    text_width: int
    text_tokens: int
    text_masked: bool
    clock_scale: float
    per_frame: bool
    guided: bool
    image_width: int
    spatial: int
    temporal: int
    fps: float


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """network: of a diffusers class. provenance: {source, revision, sha256, random}; sha256 is that of its safetensors
    files, None for weights that came from none. picture: of networks that read picture features, what makes them."""

    name: str
    network: nn.Module
    description: Description
    provenance: dict[str, Any]
    picture: PictureReader | None = None

    @property
    def architecture(self) -> dict[str, Any]:
        """Enough to build the network again: {class, config}."""
        config = {k: v for k, v in dict(self.network.config).items() if not k.startswith("_")}  # type: ignore[arg-type]
        return {"class": type(self.network).__name__, "config": config}


AnyBackbone = Backbone | VlmBackbone
"""A video transformer of diffusers, or a vision-language model of transformers."""


def load_backbone(
    name: str,
    weights: Weights = "pretrained",
    *,
    source: str = "",
    revision: str | None = None,
    fps: float = 0.0,
    layers: int = 0,
) -> AnyBackbone:
    """A backbone by its name in a catalogue, or a folder or hub name in diffusers' format, or of a vision-language model in
    transformers'. source: the folder or hub name that holds the weights of a name in the catalogue, if not the one named
    there. layers: of a vision-language model, how many of its first ones; 0: all.

    pretrained: the weights that are on this machine or can be fetched, in float32; never others. tiny: random weights of a
    small network of the same class. meta: the full shapes on the meta device. Raises WamError where the name is unknown, the
    weights are not at hand, incomplete or of another class; only safetensors are read.
    """
    if name in VLMS or (name not in CATALOGUE and is_vlm(name)):
        return load_vlm(name, weights, source=source, revision=revision, layers=layers)
    known = CATALOGUE.get(name)
    if known is None and "/" not in name and not Path(name).expanduser().is_dir():
        raise unknown_name(name)
    if weights == "pretrained":
        return _pretrained(name, known, source, revision, fps)
    if known is None:
        raise expected(
            f"a name of the catalogue for {weights} weights ({', '.join(CATALOGUE)})", got=repr(name), do="name one"
        )
    if weights not in ("tiny", "meta"):
        raise expected("weights pretrained, tiny or meta", got=repr(weights), do="name one of the three")
    config = known.tiny_config if weights == "tiny" else known.config
    return build_backbone(
        {"class": known.kind, "config": config},
        name=name,
        device="meta" if weights == "meta" else "cpu",
        provenance={"source": f"{name}, {weights}", "revision": None, "sha256": None, "random": True},
        fps=fps,
    )


def build_backbone(
    architecture: Mapping[str, Any], *, name: str, provenance: Mapping[str, Any], device: str = "cpu", fps: float = 0.0
) -> Backbone:
    """A network of this class and config as it is made, for weights that come from elsewhere."""
    with torch.device(device):
        network = _class(architecture["class"])(**architecture["config"])
    known = describe(architecture["class"], network.config, known=CATALOGUE.get(name), fps=fps)
    return Backbone(
        name=name,
        network=network.eval(),
        description=known,
        provenance=dict(provenance),
        picture=_picture(known, provenance) if device != "meta" else None,
    )


def build_any(
    architecture: Mapping[str, Any], *, name: str, provenance: Mapping[str, Any], fps: float = 0.0
) -> AnyBackbone:
    """`build_backbone`, or `build_vlm` where the class is that of a vision-language model."""
    if architecture["class"] in VLM_FAMILIES:
        return build_vlm(architecture, name=name, provenance=provenance)
    return build_backbone(architecture, name=name, provenance=provenance, fps=fps)


def describe(kind: str, config: Mapping[str, Any], *, known: Known | None = None, fps: float = 0.0) -> Description:
    """What a network of the class `kind` with this config is. Raises WamError for one that cannot be a stream's expert."""
    if kind not in FAMILIES:
        raise expected(f"a transformer of class {', '.join(FAMILIES)}", got=repr(kind), do="name one of these")
    c = dict(config)
    heads, head_dim = c["num_attention_heads"], c["attention_head_dim"]
    shared = {
        "family": FAMILIES[kind],
        "width": heads * head_dim,
        "heads": heads,
        "head_dim": head_dim,
        "layers": c["num_layers"],
        "latent_channels": c["out_channels"],
        "fps": fps or (known.fps if known else 0.0),
        "image_width": 0,
        "guided": False,
        "text_masked": False,
        "text_tokens": 512,
    }
    if kind == WAN:
        large = c["out_channels"] > 16  # the VAE of Wan2.2-TI2V, which came with a time step for each token
        return Description(
            **{
                **shared,
                "patch": tuple(c["patch_size"]),
                "text_width": c["text_dim"],
                "clock_scale": 1000.0,
                "per_frame": large,
                "guided": c["in_channels"] > c["out_channels"],
                "image_width": c.get("image_dim") or 0,
                "spatial": 16 if large else 8,
                "temporal": 4,
            }
        )
    if kind == COSMOS:
        if c.get("extra_pos_embed_type") or c.get("img_context_dim_in"):
            raise expected(
                "a Cosmos-Predict2 or 2.5 transformer",
                got="one with learned positions or a picture to attend to",
                do="name a Cosmos-Predict2 or 2.5 model",
            )
        projected = c.get("use_crossattn_projection")
        return Description(
            **{
                **shared,
                "patch": tuple(c["patch_size"]),
                "text_width": c["crossattn_proj_in_channels"] if projected else c["text_embed_dim"],
                "clock_scale": 1.0,
                "per_frame": True,
                "spatial": 8,
                "temporal": 4,
            }
        )
    assert kind == LTX
    return Description(
        **{
            **shared,
            "patch": (c["patch_size_t"], c["patch_size"], c["patch_size"]),
            "text_width": c["caption_channels"],
            "text_tokens": known.text_tokens if known else 128,
            "text_masked": True,
            "clock_scale": 1000.0,
            "per_frame": True,
            "spatial": 32,
            "temporal": 8,
            "fps": shared["fps"] or 25.0,
        }
    )


def _pretrained(name: str, known: Known | None, source: str, revision: str | None, fps: float) -> Backbone:
    from safetensors import SafetensorError

    if not source and known is not None:
        source, revision = known.repository, revision or known.revision
    source = source or name
    source = str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    kind = f"the transformer of {name}" if known else "the transformer"
    try:
        folder = _folder(source)
        where = {"revision": revision, "subfolder": folder}
        config = _class(WAN).load_config(source, **where)  # any class reads any other's
        network, report = _class(config.get("_class_name")).from_pretrained(
            source, use_safetensors=True, output_loading_info=True, torch_dtype=torch.float32, **where
        )
    except (OSError, ValueError, ImportError, SafetensorError, RuntimeError) as error:
        raise not_on_disk(kind, source, revision, error) from error
    refuse_missing(kind, source, report["missing_keys"])
    files = files_read(source, folder, revision, stem="diffusion_pytorch_model")
    provenance = read_provenance(source, revision or commit_of(files))
    description = describe(type(network).__name__, network.config, known=known, fps=fps)
    return Backbone(
        name=name,
        network=network.eval(),
        description=description,
        provenance={**provenance, "sha256": fingerprint(files)},
        picture=_picture(description, {"source": source, "revision": revision, "random": False}),
    )


def _picture(known: Description, provenance: Mapping[str, Any]) -> PictureReader | None:
    if not known.image_width:
        return None
    if provenance["random"]:
        return PictureReader.tiny(known.image_width)
    return PictureReader.load(provenance["source"], provenance["revision"])


def _class(name: Any) -> Any:
    if name not in FAMILIES:
        raise expected(f"a transformer of class {', '.join(FAMILIES)}", got=repr(name), do="name a model of these")
    import diffusers

    return getattr(diffusers, name)


def _folder(source: str) -> str | None:
    """The folder of the transformer in `source`: none where a folder holds the transformer alone."""
    return None if (Path(source) / "config.json").is_file() else FOLDER
