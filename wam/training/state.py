"""The state of a run beyond the model: optimizer, averaged weights and position, saved without pickle.

checkpoints/step-00000500/            a model folder (averaged weights), ready for use
checkpoints/step-00000500/training/   weights, averaged and optimizer .safetensors, state.json; of a sharded run, folders
                                      of those names and its number of ranks, with the pieces that each rank wrote
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

from wam.checkpoint import PROVENANCE
from wam.contracts import expected
from wam.files import sha256, write_bytes, write_json
from wam.settings import build, load_settings
from wam.training.config import TrainConfig
from wam.training.sharding import is_sharded, laid_out, read_shards, write_shards

TENSORS = ("weights", "averaged", "optimizer")
INSIDE = "/"


def flatten_optimizers(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by `optimizer.parameter.name`, and what is no tensor."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    groups = []
    for number, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        for index, entries in state["state"].items():
            for name, value in _flat(entries).items():
                (tensors if isinstance(value, Tensor) else plain)[f"{number}.{index}.{name}"] = value
        groups.append([{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]])
    return tensors, {"plain": plain, "groups": json.loads(json.dumps(groups))}


def _flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """State within state, as 8-bit optimizers have it, by names joined with `INSIDE`."""
    found: dict[str, Any] = {}
    for name, value in entries.items():
        found |= _flat(value, f"{prefix}{name}{INSIDE}") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def restore_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Raises WamError if the state is that of other optimizers."""
    found: dict[int, dict[int, dict[str, Any]]] = {number: {} for number in range(len(optimizers))}
    entries = {tuple(key.split(".", 2)): value for key, value in {**tensors, **rest["plain"]}.items()}
    if len(rest["groups"]) == len(optimizers) and all(len(key) == 3 for key in entries):
        for (number, index, name), value in entries.items():
            *path, last = name.split(INSIDE)
            place = found[int(number)].setdefault(int(index), {})
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
    else:
        raise expected(
            f"the state of {len(optimizers)} optimizer(s)",
            got=f"that of {len(rest['groups'])}",
            do="go on with the optimizer.kind the run was started with, or name another output",
        )
    for number, optimizer in enumerate(optimizers):
        groups = optimizer.state_dict()["param_groups"]
        count = sum(len(group["params"]) for group in groups)
        if max(found[number], default=-1) >= count:
            raise expected(
                f"the state of an optimizer of {count} parameters",
                got=f"that of {max(found[number]) + 1}",
                do="restore the config and the version of wam that the run was started with, or name another output",
            )
        optimizer.load_state_dict({"state": found[number], "param_groups": groups})


def save_training(
    folder: Path,
    *,
    weights: Mapping[str, Tensor],
    averaged: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    state: Mapping[str, Any],
    main: bool = True,
    ranks: int = 1,
) -> None:
    """Every rank has to call where tensors are sharded; else only the `main` one writes."""
    tensors, rest = flatten_optimizers(optimizers)
    contents = dict(zip(TENSORS, (weights, averaged, tensors), strict=True))
    if is_sharded(weights):
        places = {name: f"{name}-{ranks}" for name in TENSORS}
        for name, place in places.items():
            write_shards(folder / place, contents[name])
        torch.distributed.barrier()
    else:
        places = {name: f"{name}.safetensors" for name in TENSORS}
        for name, place in places.items() if main else ():
            pieces = {k: v.detach().cpu().contiguous() for k, v in contents[name].items()}
            write_bytes(folder / place, save(pieces))
    if main:
        files = [file for place in places.values() for file in _files(folder / place)]
        digests = {file.relative_to(folder).as_posix(): sha256(file) for file in files}
        write_json(folder / "state.json", {**state, "optimizer": rest, "tensors": places, "sha256": digests})


def load_training(
    folder: Path, *, like: Mapping[str, Mapping[str, Tensor]] | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by name (weights, averaged, optimizer), and the state. like: tensors by the same names whose layout over the
    ranks theirs should take, whatever the number of ranks that wrote them. Raises WamError if one is missing or damaged."""
    like = like or {}
    try:
        state = json.loads((folder / "state.json").read_text())
        for name, digest in state["sha256"].items():
            if sha256(folder / name) != digest:
                raise expected(
                    f"{folder / name} as it was written", got="another content", do="resume from an earlier checkpoint"
                )
        found = {}
        for name in TENSORS:
            place = folder / state.get("tensors", {}).get(name, f"{name}.safetensors")
            shape = like.get(name, {})
            found[name] = read_shards(place, shape) if place.is_dir() else laid_out(load(place.read_bytes()), shape)
        return found, state
    except (OSError, ValueError, KeyError) as error:
        raise expected(
            f"a resumable checkpoint at {folder}", got=f"{type(error).__name__}: {error}", do="use an earlier one"
        ) from error


def _files(place: Path) -> list[Path]:
    return sorted(place.glob("*.safetensors")) if place.is_dir() else [place]


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
    if (run / PROVENANCE).is_file():
        return run
    found = last_checkpoint(run)
    if found is None:
        raise expected(
            f"a run with a checkpoint at {run}", got="none", do="train it first, or name a checkpoint folder"
        )
    return found


def trained_config(run: Path) -> TrainConfig:
    """What a run was trained with; of a checkpoint folder on its own, as its provenance has it. Raises WamError if it does not
    say."""
    if not (run / PROVENANCE).is_file():
        return load_settings(TrainConfig, run / "config.yaml")
    try:
        said = json.loads((run / PROVENANCE).read_text())["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise expected(
            f"{run / PROVENANCE} to say what it was trained with",
            got=f"{type(error).__name__}: {error}",
            do="name the run's folder, or fetch the checkpoint again",
        ) from error
    return build(TrainConfig, said)
