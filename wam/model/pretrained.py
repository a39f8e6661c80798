"""A world-action model to and from a checkpoint folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from wam.checkpoint import Checkpoint, code_revision
from wam.contracts import ActionSpace, expected
from wam.files import write_bytes
from wam.model.backbones.bases import find_backbones, is_left_out
from wam.model.card import write_card
from wam.model.config import ModelConfig
from wam.model.hub_index import write_index
from wam.model.stems import TextStem
from wam.model.wam import WorldActionModel
from wam.settings import build, to_plain

CARD = "README.md"


def save_pretrained(
    model: WorldActionModel,
    folder: Path,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    cameras: tuple[str, ...] = (),
    statistics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write `model` (or other `tensors` of its names, say averaged ones) with what a user of it must know. Weights that a
    pretrained base has are left to it; the provenance says which base that is."""
    network, config = model.network, model.config
    parts: dict[str, Any] = {"video": network.video_tokenizer.provenance}
    if "text" in network.stems:
        parts["text"] = cast(TextStem, network.stems["text"]).encoder.provenance
    held: dict[str, Any] = {}
    for s, base in network.bases.items():
        parts.setdefault("backbones", {})[s] = {k: v for k, v in base.items() if k != "architecture"}
        if not is_left_out(config, s, base):
            held[s] = to_plain(base["architecture"])
    said = {"code": code_revision(), "random": False, "parts": parts, **(provenance or {})}
    kept = model.state_dict() if tensors is None else tensors
    card = write_card(
        config,
        parameters=sum(value.numel() for value in kept.values()),
        provenance=said,
        cameras=cameras,
        action_space=model.action_space,
    )
    write_bytes(folder / CARD, card.encode())
    plain = to_plain(replace(config, attention="auto", checkpointing="none"))  # of the machine, not the model
    write_index(folder, plain)
    Checkpoint(
        config={
            "model": plain,
            **({"backbones": held} if held else {}),
            "action_space": model.action_space.to_dict() if model.action_space else None,
            "cameras": list(cameras),
        },
        tensors=kept,
        statistics=statistics or {},
        provenance=said,
    ).save(folder)


def from_pretrained(folder: str | Path, *, bases: Mapping[str, str] | None = None) -> WorldActionModel:
    """The model of a checkpoint folder, in evaluation mode. `model.cameras`, `model.provenance` and `model.statistics`
    carry what the checkpoint says. bases: by stream, where a pretrained base lies that the checkpoint leaves out, if it has
    moved. Raises WamError if a file or a base is missing, damaged or of another model."""
    checkpoint = Checkpoint.load(Path(folder))
    if "model" not in checkpoint.config:
        raise expected(
            f"a world-action model in {folder}",
            got=f"a checkpoint of {', '.join(checkpoint.config)}",
            do="name a folder that the stage joint, pretrain or posttrain wrote",
        )
    space, config = checkpoint.config.get("action_space"), build(ModelConfig, checkpoint.config["model"])
    model = WorldActionModel(
        config,
        action_space=ActionSpace.from_dict(space) if space else None,
        backbones=find_backbones(
            config,
            checkpoint.provenance.get("parts", {}).get("backbones", {}),
            checkpoint.config.get("backbones", {}),
            places=bases or {},
            checkpoint=str(folder),
        ),
    )
    missing, unknown = model.load_state_dict(dict(checkpoint.tensors), strict=False)
    if missing or unknown:
        raise expected(
            f"weights for every part of the model in {folder}",
            got=f"{len(missing)} missing ({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})",
            do="use the version of wam that its provenance names",
        )
    model.cameras = tuple(checkpoint.config.get("cameras", ()))
    model.provenance = dict(checkpoint.provenance)
    model.statistics = dict(checkpoint.statistics)
    return model.eval()
