"""Weights that a checkpoint leaves to the pretrained base they came from: which they are, and how they are found again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from wam.contracts import WamError, expected
from wam.model.backbones.adapters import is_adapter
from wam.model.backbones.load import AnyBackbone, build_any, load_backbone
from wam.model.config import ModelConfig

Bases = Mapping[str, Mapping[str, Any]]
"""{name, source, revision, sha256, random, architecture} by stream."""


def borrowed(config: ModelConfig, bases: Bases, network: nn.Module) -> set[str]:
    """Names in the network of weights that stay as a pretrained base has them."""
    parts: tuple[str, ...] = ()
    for s, base in bases.items():
        if is_left_out(config, s, base):
            parts += (f"transformer.experts.{s}.", f"videos.{s}.pretrained.")
    return {name for name, _ in network.named_parameters() if name.startswith(parts) and not is_adapter(name)}


class Lender(Protocol):
    def borrowed(self) -> set[str]: ...


def leave_out(model: nn.Module) -> None:
    """Keep the borrowed weights of a `Lender` out of its `state_dict()`, and do not miss them when one is loaded: gigabytes
    that never change are then in no checkpoint, average or optimizer."""
    model.register_state_dict_post_hook(_drop)
    model.register_load_state_dict_post_hook(_excuse)


def _drop(model: Lender, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in model.borrowed():
        state.pop(prefix + name, None)


def _excuse(model: Lender, incompatible: Any) -> None:
    away = model.borrowed()
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if name not in away]


def is_left_out(config: ModelConfig, stream: str, base: Mapping[str, Any]) -> bool:
    """Do the weights of this stream's backbone stay as they are in a base that can be had again? Random ones are in none."""
    c = config.streams[stream]
    return c.backbone is not None and (c.backbone.frozen or c.lora is not None) and not base["random"]


def find_backbones(
    config: ModelConfig,
    recorded: Bases,
    held: Mapping[str, Mapping[str, Any]],
    *,
    places: Mapping[str, str],
    checkpoint: str,
) -> dict[str, AnyBackbone]:
    """The backbones of a checkpoint's model, by stream: for those whose weights it holds, networks of the architecture
    {class, config} that wait for them; the others loaded again. places: folders or hub names of bases that have moved.

    Raises WamError, in one sentence, where a base is not to be had or is not the one the checkpoint was trained on.
    """
    found: dict[str, AnyBackbone] = {}
    for s, base in recorded.items():
        c = config.streams[s].backbone
        assert c is not None
        if s in held:
            found[s] = build_any(held[s], name=base["name"], provenance=base, fps=c.fps)
            continue
        source = places.get(s, c.source)
        revision = c.revision if source != c.source else base["revision"] or c.revision
        what = f"the base that {checkpoint} leaves out, {base['name']} (revision {base['revision']})"
        try:
            found[s] = load_backbone(c.name, "pretrained", source=source, revision=revision, fps=c.fps, layers=c.layers)
        except WamError as error:
            raise expected(what, got="none that loads", do=str(error).rpartition("; ")[2]) from error
        sha256 = found[s].provenance["sha256"]
        if sha256 != base["sha256"]:
            raise expected(
                f"{what} with sha256 {str(base['sha256'])[:12]}",
                got=str(sha256)[:12],
                do="fetch the revision that the checkpoint names, or say where it lies by `bases`",
            )
    return found
