"""Actions as an environment takes them: checked and clipped."""

from __future__ import annotations

import numpy as np

from wam.contracts import ActionSpace, expected


def checked_action(action: np.ndarray, space: ActionSpace) -> np.ndarray:
    """The action (A,) as float32 inside its limits. Raises WamError on a wrong shape or a number that is not finite."""
    action = np.asarray(action, np.float32)
    if action.shape != (space.dim,) or not np.isfinite(action).all():
        raise expected(
            f"a finite action of shape ({space.dim},)",
            got=f"shape {action.shape} with {int((~np.isfinite(action)).sum())} numbers that are not finite",
            do=f"give one number for each of {', '.join(space.names)}",
        )
    return np.clip(action, np.asarray(space.low, np.float32), np.asarray(space.high, np.float32))
