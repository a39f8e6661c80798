"""The surface of what is filled: the voxels that have a colour to be seen. Free of torch, as a simulator's processes are.

Coloured voxels are (..., X, Y, Z, 4) uint8: red, green, blue, and what it is that has this colour: ROBOT,
OBJECT, GROUND (table, floor and walls), THING where nobody said, and 0 where no colour is known.
"""

from __future__ import annotations

import numpy as np

ROBOT, OBJECT, GROUND, THING = 1, 2, 3, 255
KINDS = {"robot": ROBOT, "object": OBJECT, "ground": GROUND}


def exposed(filled: np.ndarray) -> np.ndarray:
    """(..., X, Y, Z) bool: filled voxels with a face towards one that is not filled, or towards the outside of the grid."""
    padded = np.pad(filled, [(0, 0)] * (filled.ndim - 3) + [(1, 1)] * 3)
    covered = filled.copy()
    whole = slice(1, -1)
    for axis in range(3):
        for side in (slice(None, -2), slice(2, None)):
            covered &= padded[(..., *(side if axis == i else whole for i in range(3)))]
    return np.asarray(filled & ~covered)


def surface_only(painted: np.ndarray) -> np.ndarray:
    """Coloured voxels (..., X, Y, Z, 4) of everything filled -> those of its surface alone, zeros elsewhere."""
    return np.asarray(painted * exposed(painted[..., 3] > 0)[..., None])
