"""What may be asked of a start: actions by name, in the units of the action space, and which answers they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wam.contracts import ActionSpace, expected
from wam.evaluation.gates import motion_dims
from wam.evaluation.pictures import pushed
from wam.explore.starts import Start
from wam.model.wam import WorldActionModel

STRENGTH = 0.8
"""Of a push, as a share of the strongest actions that the model was trained on (their 99th percentile)."""
STILL = "still"


def space_of(model: WorldActionModel) -> ActionSpace:
    if model.action_space is None or "action" not in model.config.streams:
        raise expected("a model that knows actions", got="one without", do="imagine without actions")
    return model.action_space


def motion_of(space: ActionSpace) -> tuple[int, ...]:
    """Where x, y and z stand among the actions; where none is called so, the first three that are not the gripper."""
    if set(space.names) & {"x", "y", "z", "dx", "dy", "dz"}:
        return motion_dims(space)
    return tuple(i for i, name in enumerate(space.names) if name != space.gripper)[:3]


def known_range(model: WorldActionModel) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest of each action (A,): between the first and the 99th percentile of training, within the limits."""
    space, normalizer = space_of(model), model.normalizer("action")
    center, scale = (x.cpu().numpy() for x in (normalizer.center, normalizer.scale))
    return np.maximum(center - scale, space.low), np.minimum(center + scale, space.high)


def still(model: WorldActionModel, start: Start, length: int) -> np.ndarray:
    """(L, A) actions that move nothing: 0 where actions are steps, the present target where they are targets; the gripper as
    recorded, else the middle of what is known. Raises WamError where targets are not known."""
    space = space_of(model)
    low, high = known_range(model)
    recorded = start.actions(1)
    if recorded is None and space.kind == "absolute":
        raise expected("a start whose present target is known", got="none", do="give whole actions (K, A)")
    held = (low + high) / 2 if recorded is None else recorded[0].copy()
    if space.kind != "absolute":
        held[[i for i, name in enumerate(space.names) if name != space.gripper]] = 0.0
    return np.repeat(held[None].astype(np.float32), length, axis=0)


def push(model: WorldActionModel, start: Start, length: int, moves: Mapping[str, float]) -> np.ndarray:
    """(L, A): the same action at every step, `moves` saying how strong along each named dimension, the others still."""
    space = space_of(model)
    if unknown := set(moves) - set(space.names):
        raise expected(f"actions among {', '.join(space.names)}", got=", ".join(sorted(unknown)), do="rename them")
    chunk, direction = still(model, start, length), np.zeros(space.dim)
    for name, value in moves.items():
        dim = space.names.index(name)
        if not np.isfinite(value):
            raise expected(f"a finite {name}", got=value, do="correct it")
        if name == space.gripper:
            chunk[:, dim] = value
        else:
            direction[dim] = value
    return pushed(chunk, direction, space).astype(np.float32)


def pushes(model: WorldActionModel, start: Start, length: int, *, strength: float = STRENGTH) -> dict[str, np.ndarray]:
    """Standing still, and a push along each moving dimension both ways."""
    space, (low, high) = space_of(model), known_range(model)
    found = {STILL: still(model, start, length)}
    for dim in motion_of(space):
        for mark, value in (("+", high[dim]), ("−", low[dim])):
            name = space.names[dim]
            found[f"{mark}{name}"] = push(model, start, length, {name: strength * float(value)})
    return found


def checked(model: WorldActionModel, actions: np.ndarray, length: int) -> np.ndarray:
    """Actions (L, A) as float32, the last repeated where fewer are given. Raises WamError if they are none of the model's."""
    space, given = space_of(model), np.asarray(actions, np.float32)
    if given.ndim != 2 or given.shape[1] != space.dim or not 1 <= len(given) <= length or not np.isfinite(given).all():
        raise expected(
            f"finite actions of shape (L, {space.dim}), {', '.join(space.names)}, with L from 1 to {length}",
            got=f"shape {given.shape}",
            do="give fewer, or imagine more chunks",
        )
    return np.concatenate([given, np.repeat(given[-1:], length - len(given), axis=0)])
