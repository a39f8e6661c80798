"""The few types that everything passes: observations, action spaces, batches and the user's errors.

Dimension keys, used in docstrings and variable suffixes everywhere:

    B batch   V views (cameras)   T frames   H W pixels   C channels   K action-chunk length
    A action dim   S state dim   L tokens   D width   N heads   X Y Z voxels
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:  # the robot-side client imports this module without torch
    import torch
    from torch import Tensor

ActionKind = Literal["absolute", "relative", "delta"]


class WamError(Exception):
    """An error of the user's making: one sentence that says what was expected, what came and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


def expected(what: str, *, got: object, do: str) -> WamError:
    """The one way an error is phrased: expected ..., got ...; what to do."""
    return WamError(f"expected {what}, got {got}; {do}")


@dataclass(frozen=True, kw_only=True)
class ActionSpace:
    """What the numbers of an action mean. Travels with datasets, checkpoints and the server's metadata.

    names, units: one per dimension (A). low, high: limits in those units. kind: ``absolute`` targets, targets
    ``relative`` to the state at the chunk's start, or per-step ``delta``. rate_hz: actions per second.
    gripper: name of the gripper dimension, or None; gripper_closed_high: True if larger means more closed.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    kind: ActionKind
    rate_hz: float
    gripper: str | None = None
    gripper_closed_high: bool = True

    def __post_init__(self) -> None:
        for field in ("names", "units", "low", "high"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
            if len(getattr(self, field)) != len(self.names):
                raise expected(
                    f"an action space with {len(self.names)} {field}",
                    got=f"{len(getattr(self, field))}",
                    do=f"give one of `{field}` for each of {', '.join(self.names)}",
                )
        if self.kind not in ("absolute", "relative", "delta"):
            raise expected("kind absolute, relative or delta", got=repr(self.kind), do="name one of the three")
        if self.gripper is not None and self.gripper not in self.names:
            raise expected(f"gripper to be one of {self.names}", got=repr(self.gripper), do="name an action dimension")
        if self.rate_hz <= 0:
            raise expected("a control rate above 0 Hz", got=self.rate_hz, do="give the actions per second")

    @property
    def dim(self) -> int:
        return len(self.names)

    def to_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ActionSpace:
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(data) - known:
            raise expected(f"action-space keys among {sorted(known)}", got=sorted(unknown), do="remove or rename them")
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a robot or simulator gives at one instant.

    images: camera name -> (H, W, 3) uint8. state: (S,) float32. intrinsics: camera name -> (3, 3) in pixels.
    extrinsics: camera name -> (4, 4) camera-to-world, OpenCV axes (x right, y down, z forward), metres.
    depth: camera name -> (H, W) float32 metres along z. timestamp: seconds.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray | None = None
    instruction: str = ""
    intrinsics: Mapping[str, np.ndarray] | None = None
    extrinsics: Mapping[str, np.ndarray] | None = None
    depth: Mapping[str, np.ndarray] | None = None
    timestamp: float | None = None

    def __post_init__(self) -> None:
        for name, image in self.images.items():
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise expected(
                    f"image {name!r} as uint8 of shape (H, W, 3)",
                    got=f"{image.dtype} of shape {image.shape}",
                    do="convert it to 8-bit RGB, height first",
                )
        if self.state is not None and (self.state.ndim != 1 or not np.isfinite(self.state).all()):
            raise expected(
                "a finite state of shape (S,)",
                got=f"shape {self.state.shape}, finite: {bool(np.isfinite(self.state).all())}",
                do="check the robot's readings",
            )


_BATCH_DIMS = {
    "images": "B V T H W C",
    "future": "B V T H W C",
    "future_mask": "B T",
    "latents": "B V T H W C",
    "future_latents": "B V T H W C",
    "view_mask": "B V",
    "state": "B S",
    "state_mask": "B S",
    "action": "B K A",
    "action_mask": "B K",
    "latent_action": "B K A",
    "latent_action_mask": "B K",
    "occupancy": "B T X Y Z",
    "occupancy_colour": "B T X Y Z C",
    "value": "B",
    "depth": "B V T H W",
    "intrinsics": "B V 3 3",
    "extrinsics": "B V 4 4",
    "embodiment": "B",
    "source": "B",
    "window": "B",
    "play": "B",
}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of windows. Every field but `images` is optional; a missing field means a missing stream.

    images        (B, V, T, H, W, C) uint8; the observed past, the last frame being the present
    future        (B, V, T, H, W, C) uint8; frames to come
    future_mask   (B, T) bool; True where the future frame is real, False past the episode's end
    latents       (B, V, T, h, w, c) of `images`, made before; future_latents those of `future`. Beside them the pictures
                  may have no pixels, (B, V, T, 0, 0, C)
    view_mask     (B, V) bool; True where the camera exists
    state         (B, S) float32, in the dataset's own units, at the present
    state_mask    (B, S) bool; True where that number is known, all of them where there is no mask
    action        (B, K, A) float32, in the units of the action space; action[:, 0] is taken at the present
    action_mask   (B, K) bool; True where the action is real
    latent_action (B, K, A) float32 latents, or (B, K, levels) int64 codes; latent_action_mask (B, K) bool, where known
    occupancy     (B, T, X, Y, Z) uint8; 0 free, 1 occupied, 2 unknown; at the present, then at each frame to come
    occupancy_colour  (B, T, X, Y, Z, C) uint8; red, green, blue, and what it is (`wam.geometry.surface`), 0 where not known
    value         (B,) float32 return to go
    depth         (B, V, T, H, W) float32 metres;  intrinsics (B, V, 3, 3);  extrinsics (B, V, 4, 4) camera-to-world
    embodiment    (B,) int64 index of the robot
    source        (B,) int64 index of the dataset in the mixture;  window (B,) int64 index of the window in that dataset
    play          (B,) bool; True where actions do not follow from the frame (random play)
    instruction   B sentences
    """

    images: Tensor
    future: Tensor | None = None
    future_mask: Tensor | None = None
    latents: Tensor | None = None
    future_latents: Tensor | None = None
    view_mask: Tensor | None = None
    state: Tensor | None = None
    state_mask: Tensor | None = None
    action: Tensor | None = None
    action_mask: Tensor | None = None
    latent_action: Tensor | None = None
    latent_action_mask: Tensor | None = None
    occupancy: Tensor | None = None
    occupancy_colour: Tensor | None = None
    value: Tensor | None = None
    depth: Tensor | None = None
    intrinsics: Tensor | None = None
    extrinsics: Tensor | None = None
    embodiment: Tensor | None = None
    source: Tensor | None = None
    window: Tensor | None = None
    play: Tensor | None = None
    instruction: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = self.images.shape[0]
        for name, tensor in self.tensors().items():
            dims = _BATCH_DIMS[name].split()
            if tensor.ndim != len(dims) or tensor.shape[0] != size:
                raise expected(
                    f"batch field {name!r} of shape ({', '.join(dims)}) with B = {size}",
                    got=f"shape {tuple(tensor.shape)}",
                    do="stack windows of one batch along the first axis",
                )
        for masked in ("future", "action", "latent_action"):
            mask = f"{masked}_mask"
            present, of = getattr(self, mask), getattr(self, masked)
            time = of.shape[2 if masked == "future" else 1] if of is not None else None
            if present is not None and time is not None and present.shape[1] != time:
                raise expected(
                    f"{mask!r} of length {time}", got=present.shape[1], do=f"give one flag per {masked} step"
                )
        if self.instruction and len(self.instruction) != size:
            raise expected(f"{size} instructions", got=len(self.instruction), do="give one sentence per window")

    @property
    def size(self) -> int:
        return self.images.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """The tensor fields that are present."""
        found = {name: getattr(self, name) for name in _BATCH_DIMS}
        return {name: value for name, value in found.items() if value is not None}

    def replace(self, **changes: Any) -> Batch:
        """The same batch with other fields. Latents made of pictures that are replaced go with them."""
        if "images" in changes:  # of which a causal tokenizer's latents of the future are made too
            changes = {"latents": None, "future_latents": None} | changes
        elif "future" in changes:
            changes = {"future_latents": None} | changes
        return dataclasses.replace(self, **changes)

    def without(self, *names: str) -> Batch:
        """The same batch with some streams missing."""
        return self.replace(**{name: () if name == "instruction" else None for name in names})

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        return self.replace(**{k: v.to(device, non_blocking=non_blocking) for k, v in self.tensors().items()})

    def __getitem__(self, index: slice | Sequence[int]) -> Batch:
        """Some rows of the batch."""
        import torch

        rows = torch.arange(self.size)[index] if isinstance(index, slice) else torch.as_tensor(index)
        fields: dict[str, Any] = {k: v[rows.to(v.device)] for k, v in self.tensors().items()}
        if self.instruction:
            fields["instruction"] = tuple(self.instruction[i] for i in rows.tolist())
        return self.replace(**fields)
