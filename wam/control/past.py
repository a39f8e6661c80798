"""What a policy that looks back was shown before: the last frames of every slot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Past:
    """Frames of each slot's episode. length: T, that a model sees at once, the present included."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._seen: dict[int, list[np.ndarray]] = {}

    def reset(self, index: int | None = None) -> None:
        """Forget what slot `index`, or every slot, was shown."""
        if index is None:
            self._seen.clear()
        else:
            self._seen.pop(index, None)

    def extend(self, images: np.ndarray, slots: Sequence[int] | None = None) -> np.ndarray:
        """The present (B, V, 1, H, W, 3), row i being of slot i, or of slots[i], with the frames before it
        (B, V, T, H, W, 3); a slot's first frame stands for those that it never saw."""
        if self.length == 1:
            return images
        pasts = []
        for slot, frame in zip(range(len(images)) if slots is None else slots, images, strict=True):
            self._seen[slot] = [*self._seen.get(slot, []), frame][-self.length :]
            pasts.append(self._whole(self._seen[slot]))
        return np.stack(pasts)

    def shown(self, slot: int) -> np.ndarray | None:
        """(V, T, H, W, 3): what `extend` last gave for this slot; None where nothing is kept."""
        seen = self._seen.get(slot)
        return None if seen is None else self._whole(seen)

    def _whole(self, seen: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([seen[0]] * (self.length - len(seen)) + seen, axis=1)
