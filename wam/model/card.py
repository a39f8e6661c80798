"""The model card that is saved with every world-action model: what it is, what it takes, where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from wam.contracts import ActionSpace
from wam.model.config import ModelConfig


def write_card(
    config: ModelConfig,
    *,
    parameters: int,
    provenance: Mapping[str, Any],
    cameras: Sequence[str],
    action_space: ActionSpace | None,
) -> str:
    """Markdown with the front matter that model hubs read. It claims nothing that was not written down while training."""
    parts = provenance.get("parts", {})
    bases = parts.get("backbones", {})
    front: dict[str, Any] = {"library_name": "wam", "pipeline_tag": "robotics", "tags": ["world-action-model"]}
    if named := [str(base["source"]) for base in bases.values() if not base["random"]]:
        front["base_model"] = named
    random = [name for name, base in {**bases, **_others(parts)}.items() if base.get("random")]
    if provenance.get("random"):
        random = ["the whole model"]
    seen = f" ({', '.join(cameras)})" if cameras else ""
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        "# World-action model",
        f"One transformer over {len(config.streams)} streams, {parameters:,} numbers in this folder.",
        *([f"**Random weights, untrained: {', '.join(random)}.**"] if random else []),
        "| stream | kind | width | predicts |\n|---|---|---|---|\n"
        + "\n".join(
            f"| {name} | {stream.kind}{_backbone(stream.backbone)} | {config.stream_width(name)} | "
            f"{stream.predicts if name in config.noisy else '-'} |"
            for name, stream in config.streams.items()
        ),
        "## What it takes",
        f"{config.views} camera(s){seen} of {config.image_size} pixels, "
        f"{config.history} observed frame(s), a state of {config.state_dim} numbers; "
        f"actions of {config.action_dim} numbers, {config.chunk} in a chunk"
        + (f" ({_actions(action_space)})." if action_space is not None else "."),
        "## Where it comes from",
        "\n".join(f"- {name}: {value}" for name, value in _origin(provenance, bases, parts)),
        "## Use",
        "```python\nfrom wam.model.pretrained import from_pretrained\n\nmodel = from_pretrained(FOLDER)\n```",
        "How well it does is not said here: `wam eval FOLDER` measures it.",
    ]
    return "\n\n".join(lines) + "\n"


def _others(parts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: part for name, part in parts.items() if name != "backbones"}


def _backbone(backbone: Any) -> str:
    return "" if backbone is None else f", {backbone.name}{', frozen' if backbone.frozen else ''}"


def _actions(space: ActionSpace) -> str:
    return f"{space.kind}, {', '.join(space.names)}, at {space.rate_hz:g} Hz"


def _origin(provenance: Mapping[str, Any], bases: Mapping[str, Any], parts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = [(name, provenance[name]) for name in ("stage", "step", "seed", "code") if name in provenance]
    if data := provenance.get("data"):
        found.append(("data", ", ".join(map(str, data))))
    if "started_from" in provenance:
        found.append(("started from", provenance["started_from"]))
    for name, part in {**bases, **_others(parts)}.items():
        digest = f", sha256 {part['sha256'][:12]}" if part.get("sha256") else ""
        found.append((name, f"{part['source']} (revision {part.get('revision')}{digest})"))
    return found
