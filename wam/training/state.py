"""The state of a run beyond the model: optimizer, averaged weights and position, saved without pickle.

checkpoints/step-00000500/            a model folder (averaged weights), ready for use
checkpoints/step-00000500/training/   weights, averaged and optimizer .safetensors, state.json
checkpoints/last                      the name of the newest complete one
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from wam.contracts import expected
from wam.files import sha256, write_bytes, write_json

TENSORS = ("weights", "averaged", "optimizer")


def flatten_optimizers(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by `optimizer.parameter.name`, and what is no tensor."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    groups = []
    for number, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        for index, entries in state["state"].items():
            for name, value in entries.items():
                (tensors if isinstance(value, Tensor) else plain)[f"{number}.{index}.{name}"] = value
        groups.append([{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]])
    return tensors, {"plain": plain, "groups": json.loads(json.dumps(groups))}


def restore_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Raises WamError if the state is that of other optimizers."""
    found: dict[int, dict[int, dict[str, Any]]] = {number: {} for number in range(len(optimizers))}
    entries = {tuple(key.split(".", 2)): value for key, value in {**tensors, **rest["plain"]}.items()}
    if len(rest["groups"]) == len(optimizers) and all(len(key) == 3 for key in entries):
        for (number, index, name), value in entries.items():
            found[int(number)].setdefault(int(index), {})[name] = value
    else:
        raise expected(
            f"the state of {len(optimizers)} optimizer(s)",
            got=f"that of {len(rest['groups'])}",
            do="go on with the optimizer.kind the run was started with, or name another output",
        )
    for number, optimizer in enumerate(optimizers):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": found[number], "param_groups": groups})


def save_training(
    folder: Path,
    *,
    weights: Mapping[str, Tensor],
    averaged: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    state: Mapping[str, Any],
) -> None:
    tensors, rest = flatten_optimizers(optimizers)
    for name, content in (("weights", weights), ("averaged", averaged), ("optimizer", tensors)):
        write_bytes(
            folder / f"{name}.safetensors", save({k: v.detach().cpu().contiguous() for k, v in content.items()})
        )
    digests = {f"{name}.safetensors": sha256(folder / f"{name}.safetensors") for name in TENSORS}
    write_json(folder / "state.json", {**state, "optimizer": rest, "sha256": digests})


def load_training(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file (weights, averaged, optimizer), and the state. Raises WamError if one is missing or damaged."""
    try:
        state = json.loads((folder / "state.json").read_text())
        for name, digest in state["sha256"].items():
            if sha256(folder / name) != digest:
                raise expected(
                    f"{folder / name} as it was written", got="another content", do="resume from an earlier checkpoint"
                )
        return {name: load((folder / f"{name}.safetensors").read_bytes()) for name in TENSORS}, state
    except (OSError, ValueError, KeyError) as error:
        raise expected(
            f"a resumable checkpoint at {folder}", got=f"{type(error).__name__}: {error}", do="use an earlier one"
        ) from error


def step_folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def mark_last(run: Path, step: int, *, keep: int) -> None:
    """Point `last` at a finished checkpoint and drop the oldest beyond `keep`."""
    write_bytes(run / "checkpoints" / "last", f"step-{step:08d}\n".encode())
    folders = sorted(p for p in (run / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d{8}", p.name))
    for folder in folders[: max(0, len(folders) - keep)]:
        shutil.rmtree(folder, ignore_errors=True)


def last_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, if there is one."""
    pointer = run / "checkpoints" / "last"
    if not pointer.is_file():
        return None
    folder = run / "checkpoints" / pointer.read_text().strip()
    return folder if folder.is_dir() else None


def newest_checkpoint(run: Path) -> Path:
    """The checkpoint of a run folder, or the folder itself if it is one. Raises WamError if there is none."""
    if (run / "provenance.json").is_file():
        return run
    found = last_checkpoint(run)
    if found is None:
        raise expected(
            f"a run with a checkpoint at {run}", got="none", do="train it first, or name a checkpoint folder"
        )
    return found
