"""What really would have happened: the simulator, returned to a recorded state, carries out other actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam.data.windows import WindowDataset
from wam.evaluation.replay import environment_of, open_environment

SIM_STATE = "sim.state"


def simulate(windows: WindowDataset, rows: Sequence[int], chunks: np.ndarray) -> np.ndarray | None:
    """Frames after each of M chunks (M, K, A) from the start of each window: (N, M, V, T, H, W, 3) uint8.

    None if the dataset has no simulator or no recorded simulator states to return to.
    """
    store = windows.store
    if SIM_STATE not in store.info.features:
        return None
    futures = []
    for row in rows:
        episode, frame = windows.episode_of(int(row))
        name = environment_of(store, store.episodes.index(episode))
        if name is None:
            return None
        environment = open_environment(store, name)
        state = store.column(SIM_STATE, episode)[frame].astype(np.float64)
        environment.reset(0)
        branches = []
        for chunk in chunks:
            environment.set_state(state)
            seen: list[np.ndarray] = []
            for step in range(max(windows.spec.future)):
                action = chunk[min(step, len(chunk) - 1)]
                due = step + 1 in windows.spec.future
                result = environment.step(action, render=due)
                if due and result.observation is not None:
                    seen.append(np.stack([result.observation.images[c] for c in windows.cameras]))
            branches.append(np.stack(seen, axis=1))
        environment.close()
        futures.append(np.stack(branches))
    return np.stack(futures)
