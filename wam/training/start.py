"""Starting a run from the weights of another model, whose streams need not all be the same."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from wam.checkpoint import Checkpoint
from wam.contracts import expected
from wam.model.backbones.adapters import plain_name
from wam.model.wam import WorldActionModel
from wam.training.config import StartConfig
from wam.training.state import newest_checkpoint


@dataclass(frozen=True, kw_only=True)
class Started:
    """What was taken over: names of the new model's tensors that came, and of those that stay as they were made; how many
    of the former are trained no more."""

    folder: Path
    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    frozen: int = 0

    def __str__(self) -> str:
        parts = sorted({part_of(name) for name in self.fresh})
        rest = f"; new: {', '.join(parts)}" if parts else ""
        rest += f"; {self.frozen} stay as they are" if self.frozen else ""
        return f"starting from {self.folder}: {len(self.taken)} of {len(self.taken) + len(self.fresh)} tensors{rest}"


def part_of(name: str) -> str:
    """`network.heads.action.read.0.weight` -> `heads.action`."""
    pieces = name.removeprefix("network.").split(".")
    return ".".join(pieces[:3] if pieces[0] == "transformer" else pieces[:2])


def renamed(name: str, streams: Mapping[str, str]) -> str:
    """A tensor's name with its streams renamed, those of edges (`text->action`) too."""
    return ".".join(
        "->".join(streams.get(side, side) for side in piece.split("->")) if "->" in piece else streams.get(piece, piece)
        for piece in name.split(".")
    )


def start_from(model: WorldActionModel, start: StartConfig) -> Started:
    """Give `model` every tensor of the checkpoint whose (renamed) name and shape it shares. Normalisers stay those of
    the new data. A stream renamed away is taken under its new name only.

    Raises WamError if the checkpoint is of no world-action model, or has nothing that fits, or nothing to freeze.
    """
    folder = newest_checkpoint(Path(start.checkpoint))
    checkpoint = Checkpoint.load(folder)
    if "model" not in checkpoint.config:
        raise expected(
            f"a world-action model in {folder}",
            got=f"a checkpoint of {', '.join(checkpoint.config)}",
            do="name a folder that the stage joint, pretrain or posttrain wrote",
        )
    if unknown := set(start.rename) - set(checkpoint.config["model"]["streams"]):
        raise expected(
            f"streams of {folder} to rename, {', '.join(checkpoint.config['model']['streams'])}",
            got=sorted(unknown),
            do="mend `start.rename`",
        )
    own = model.state_dict()
    plain = {plain_name(name): name for name in own}  # adapters may stand beside weights that came without
    borrowed = {plain_name(name) for name in model.borrowed()}
    found: dict[str, Tensor] = {}
    for name, value in checkpoint.tensors.items():
        target = renamed(name, start.rename)
        if plain_name(target) in borrowed:
            raise expected(
                "a start that leaves the frozen backbone as its base has it",
                got=f"{folder}, which holds {name}",
                do="name a start that was trained on the same frozen base, or do not freeze it",
            )
        target = target if target in own else plain.get(target, target)
        if target in own and own[target].shape == value.shape and not target.startswith("normalizers."):
            found[target] = value
    if not found:
        raise expected(
            f"weights in {folder} that fit this model", got="none of the same name and shape", do="check `model`"
        )
    model.load_state_dict(found, strict=False)
    fresh = tuple(name for name in own if name not in found and not name.startswith("normalizers."))
    return Started(folder=folder, taken=tuple(found), fresh=fresh, frozen=_freeze(model, start.freeze, taken=found))


def _freeze(model: WorldActionModel, parts: Sequence[str], *, taken: Container[str]) -> int:
    """Train these parts no more; how many tensors they have. Raises WamError for a part that there is not, or that is new."""
    names = {part: [n for n, _ in model.named_parameters() if _within(n, part)] for part in parts}
    for part, own in names.items():
        if not own or (new := [n for n in own if n not in taken]):
            raise expected(
                f"a part of the network to freeze that came from {'the checkpoint' if own else 'it'}",
                got=f"{part!r}, " + (f"whose {new[0]} is new" if own else "of which there is none"),
                do="mend `start.freeze`",
            )
    frozen = {name for own in names.values() for name in own}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return len(frozen)


def _within(name: str, part: str) -> bool:
    return f"{name.removeprefix('network.')}.".startswith(f"{part}.")
