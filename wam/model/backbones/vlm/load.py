"""A vision-language model of transformers, what it is made of, and where its weights come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wam.contracts import expected
from wam.model.backbones.config import Weights
from wam.model.backbones.vlm.catalogue import CONFIGS, FAMILIES, LAYOUTS, PALIGEMMA, VLMS
from wam.model.backbones.vlm.words import Bytes, PretrainedWords, Words
from wam.model.backbones.weights import commit_of, files_read, fingerprint
from wam.tokenizers.frozen import not_on_disk, read_provenance, refuse_missing


@dataclass(frozen=True, kw_only=True)
class VlmDescription:
    """What a vision-language model takes and is made of.

    width D, heads N of head_dim, layers: of its language model. vocabulary: of its words. picture: pixels of a side;
    picture_tokens: what a picture becomes. causal: a token of the prompt reads those before it alone; else the prompt reads
    all of itself. first: position of the first token.
    """

    family: str
    width: int
    heads: int
    head_dim: int
    layers: int
    vocabulary: int
    picture: int
    picture_tokens: int
    causal: bool
    first: int


@dataclass(frozen=True, kw_only=True)
class VlmBackbone:
    """network: of a transformers class. provenance: {source, revision, sha256, random}. words: its tokenizer."""

    name: str
    network: nn.Module
    description: VlmDescription
    provenance: dict[str, Any]
    words: Words

    @property
    def architecture(self) -> dict[str, Any]:
        """Enough to build the network again: {class, config}."""
        config: Any = self.network.config
        plain = {k: v for k, v in config.to_dict().items() if k not in ("transformers_version", "_name_or_path")}
        return {"class": type(self.network).__name__, "config": json.loads(json.dumps(plain, default=str))}


def is_vlm(name: str) -> bool:
    """Is this a folder with a vision-language model in transformers' format?"""
    file = Path(name).expanduser() / "config.json"
    try:
        said = json.loads(file.read_text()).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return False
    return any(kind in FAMILIES for kind in said)


def load_vlm(
    name: str, weights: Weights = "pretrained", *, source: str = "", revision: str | None = None, layers: int = 0
) -> VlmBackbone:
    """A vision-language model by its name in `VLMS`, or a folder of one; `wam.model.backbones.load.load_backbone` says
    what the arguments are and what is raised."""
    if weights == "pretrained":
        return _pretrained(name, source, revision, layers)
    if name not in VLMS:
        raise expected(f"a name among {', '.join(VLMS)} for {weights} weights", got=repr(name), do="name one")
    if weights not in ("tiny", "meta"):
        raise expected("weights pretrained, tiny or meta", got=repr(weights), do="name one of the three")
    known = VLMS[name]
    return build_vlm(
        {"class": known.kind, "config": known.tiny if weights == "tiny" else known.full},
        name=name,
        device="meta" if weights == "meta" else "cpu",
        provenance={"source": f"{name}, {weights}", "revision": None, "sha256": None, "random": True},
        layers=layers,
    )


def build_vlm(
    architecture: Mapping[str, Any],
    *,
    name: str,
    provenance: Mapping[str, Any],
    device: str = "cpu",
    layers: int = 0,
) -> VlmBackbone:
    """A network of this class and config as it is made, for weights that come from elsewhere."""
    import transformers

    kind = architecture["class"]
    config = getattr(transformers, CONFIGS[kind])(**architecture["config"])
    with torch.device(device):
        network = getattr(transformers, kind)(config).to(torch.float32)
    return VlmBackbone(
        name=name,
        network=_cut(network, layers).eval(),
        description=describe_vlm(kind, config),
        provenance=dict(provenance),
        words=Bytes() if provenance["random"] else _words(name, kind, provenance["source"], provenance["revision"]),
    )


def describe_vlm(kind: str, config: Any) -> VlmDescription:
    """What a network of the class `kind` with this config is."""
    text, vision = config.text_config, config.vision_config
    side = vision.image_size // vision.patch_size
    heads = text.num_attention_heads
    return VlmDescription(
        family=FAMILIES[kind],
        width=text.hidden_size,
        heads=heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        picture=vision.image_size,
        picture_tokens=side**2 if kind == PALIGEMMA else side**2 // config.scale_factor**2,
        causal=kind != PALIGEMMA,
        first=int(kind == PALIGEMMA),
    )


def language_of(network: Any) -> Any:
    """The language model inside, without its head."""
    return getattr(network.model, "text_model", None) or network.model.language_model


def _cut(network: Any, layers: int) -> nn.Module:
    """The network with its first layers alone, as SmolVLA and GR00T take them."""
    text, config = language_of(network), network.config.text_config
    if not layers:
        return network
    if not 0 < layers <= config.num_hidden_layers:
        raise expected(
            f"backbone.layers from 1 to {config.num_hidden_layers}, or 0 for all",
            got=layers,
            do="mend the stream's `backbone`",
        )
    text.layers, config.num_hidden_layers = text.layers[:layers], layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    return network


def _pretrained(name: str, source: str, revision: str | None, layers: int) -> VlmBackbone:
    import transformers
    from safetensors import SafetensorError

    known = VLMS.get(name)
    if not source and known is not None:
        source, revision = known.repository, revision or known.revision
    source = str(Path(source or name).expanduser()) if Path(source or name).expanduser().is_dir() else source or name
    what = f"the vision-language model {name}" if known else "the vision-language model"
    try:
        config = transformers.AutoConfig.from_pretrained(source, revision=revision)
        kind = (config.architectures or [""])[0]
        if kind not in FAMILIES:
            raise expected(f"a model of class {', '.join(FAMILIES)}", got=repr(kind), do="name a model of these")
        network, report = getattr(transformers, kind).from_pretrained(
            source, revision=revision, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, ImportError, SafetensorError, RuntimeError) as error:
        raise not_on_disk(what, source, revision, error) from error
    refuse_missing(what, source, report["missing_keys"])
    files = files_read(source, None, revision, stem="model")
    provenance = read_provenance(source, revision or commit_of(files))
    cut = _cut(network, layers)
    return VlmBackbone(
        name=name,
        network=cut.eval(),
        description=describe_vlm(kind, network.config),
        provenance={**provenance, "sha256": fingerprint(files)},
        words=_words(name, kind, source, revision),
    )


def _words(name: str, kind: str, source: str, revision: str | None) -> Words:
    words = PretrainedWords.load(source, revision)
    words.check(LAYOUTS[FAMILIES[kind]].special, name=name)
    return words
