"""From a batch of LeRobot's to observations of wam's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wam.contracts import Observation, expected
from wam.data.features import STATE
from wam.data.windows import resize

TASK = "task"


def to_observations(
    batch: Mapping[str, Any], cameras: Mapping[str, str], *, state: bool, size: int
) -> list[Observation]:
    """One for each row. cameras: the key of each; state: whether `observation.state` is wanted; size: side of the pictures that
    the policy was trained on, to which others are brought as training brings its own.

    Raises WamError for a key that lacks and for values that are not as LeRobot gives them: pictures (B, C, H, W) in [0, 1] or
    of 8 bits, states (B, S), and a sentence for each row under `task`.
    """
    wanted = [*cameras.values(), *([STATE] if state else []), TASK]
    if missing := [key for key in wanted if batch.get(key) is None]:
        came = sorted(key for key, value in batch.items() if key.startswith("observation.") and value is not None)
        raise expected(
            f"a batch with {', '.join(missing)}",
            got=", ".join(came) or "no observations",
            do="add it, or say by --rename_map which key is meant",
        )
    pictures = {name: to_pictures(key, batch[key], size) for name, key in cameras.items()}
    numbers = batch[STATE].detach().float().cpu().numpy() if state else None
    rows = len(next(iter(pictures.values())))
    sentences = _sentences(batch[TASK], rows)
    if numbers is not None and (numbers.ndim != 2 or len(numbers) != rows):
        raise expected(f"{STATE} of shape (B, S) with B = {rows}", got=numbers.shape, do="stack one state a row")
    return [
        Observation(
            images={name: images[row] for name, images in pictures.items()},
            state=None if numbers is None else numbers[row],
            instruction=sentences[row],
        )
        for row in range(rows)
    ]


def to_pictures(key: str, pictures: Tensor, size: int) -> np.ndarray:
    """(B, C, H, W), float in [0, 1] or uint8, to (B, size, size, 3) uint8. What LeRobot made of 8 bits comes back exactly."""
    wide = pictures.dtype in (torch.uint8, torch.float32, torch.float64)  # fewer bits would blur neighbouring greys
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not wide:
        raise expected(
            f"{key} of shape (B, 3, H, W), float32 in [0, 1] or uint8",
            got=f"{pictures.dtype} of shape {tuple(pictures.shape)}",
            do="pass the batch through the policy's preprocessor",
        )
    if pictures.dtype != torch.uint8:
        low, high = (float(bound) for bound in torch.aminmax(pictures))
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise expected(
                f"{key} in [0, 1]", got=f"{low:.3g} to {high:.3g}", do="normalise nothing: the network does it inside"
            )
        pictures = (pictures * 255).round().to(torch.uint8)
    return resize(np.ascontiguousarray(pictures.permute(0, 2, 3, 1).cpu().numpy()), size, size)


def _sentences(told: Any, rows: int) -> Sequence[str]:
    found = [told] * rows if isinstance(told, str) else list(told)
    if len(found) != rows or not all(isinstance(sentence, str) for sentence in found):
        raise expected(
            f"{rows} sentences under {TASK!r}", got=repr(told)[:80], do="give one a row, empty if there is none"
        )
    return found
