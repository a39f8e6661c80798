"""A veto on moves into what is occupied, over a grid of voxels: a simulator's, fused depth, or one that a model foresees."""

from __future__ import annotations

import numpy as np

from wam.contracts import expected
from wam.control.stages import Move


class OccupancyVeto:
    """Forbids a move in which the hand, a ball of `radius` metres, touches an occupied voxel that it did not touch before.

    occupied (X, Y, Z) bool; origin (3,): the grid's lowest corner, metres in the world; side: of a voxel. What the ball
    touches already does not count, or the hand's own voxels would freeze it. Outside the grid nothing is known
    and nothing forbidden: bound it by the guard's workspace. Whether unknown voxels count as occupied is for the caller to
    say; a move whose ends are not known is forbidden.
    """

    def __init__(self, occupied: np.ndarray, *, origin: np.ndarray, side: float, radius: float = 0.0) -> None:
        self.origin, self.side, self.radius = np.asarray(origin, float), float(side), float(radius)
        if self.origin.shape != (3,) or not self.side > 0 or not self.radius >= 0:
            raise expected(
                "a grid with an origin (3,), voxels of positive side and a radius of 0 or more",
                got=(self.origin.tolist(), self.side, self.radius),
                do="correct it",
            )
        reach = int(np.ceil(self.radius / self.side))
        around = np.arange(-reach, reach + 1)
        self._around = np.stack(np.meshgrid(around, around, around, indexing="ij"), -1).reshape(-1, 3)
        self.update(occupied)

    def update(self, occupied: np.ndarray) -> None:
        """Take a newer grid (X, Y, Z), whole: a check under way keeps the one it began with."""
        if occupied.ndim != 3 or occupied.dtype != bool:
            raise expected(
                "an occupancy grid (X, Y, Z) of bool",
                got=f"{occupied.dtype} of shape {occupied.shape}",
                do="compare probabilities with a threshold, and say whether unknown counts",
            )
        self._occupied = occupied

    def __call__(self, move: Move) -> bool:
        if move.start is None or move.end is None:
            return True
        steps = max(1, int(np.ceil(4 * np.linalg.norm(move.end - move.start) / self.side)))  # four looks a voxel
        points = np.linspace(move.start, move.end, steps + 1)
        grid = self._occupied
        entered = np.setdiff1d(self._touched(points, grid.shape), self._touched(points[:1], grid.shape))
        return bool(grid.reshape(-1)[entered].any())

    def _touched(self, points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Flat indices of the voxels that the ball touches at any of points (P, 3)."""
        cells = np.floor((points - self.origin) / self.side).astype(int)[:, None] + self._around
        low = self.origin + self.side * cells
        nearest = np.clip(points[:, None], low, low + self.side)
        near = np.linalg.norm(nearest - points[:, None], axis=-1) <= self.radius
        inside = ((cells >= 0) & (cells < shape)).all(-1)
        found = cells[near & inside]
        return np.unique(np.ravel_multi_index(tuple(found.T), shape)) if len(found) else np.zeros(0, int)
