"""The grid that voxels are counted in. Free of torch, so that a simulator's processes start without it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wam.contracts import expected

FREE, OCCUPIED, UNKNOWN = 0, 1, 2


@dataclass(kw_only=True)
class VoxelConfig:
    """A grid of X Y Z voxels, each a cube of `side` metres; origin: its lowest corner in the world, metres.

    The default covers the part of Meta-World's table that its hand reaches.
    """

    shape: list[int] = field(default_factory=lambda: [32, 32, 24])
    origin: list[float] = field(default_factory=lambda: [-0.4, 0.4, -0.02])
    side: float = 0.025

    def validate(self) -> None:
        if len(self.shape) != 3 or len(self.origin) != 3 or min(self.shape) < 1 or self.side <= 0:
            raise expected(
                "a grid of three counts and three metres with voxels of positive size",
                got=f"shape {self.shape}, origin {self.origin}, side {self.side}",
                do="correct the grid",
            )

    @property
    def count(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def centres(self) -> np.ndarray:
        """(X * Y * Z, 3) float64 in the world."""
        axes = [low + self.side * (np.arange(count) + 0.5) for low, count in zip(self.origin, self.shape, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
