"""What really would have happened: the simulator, returned to a recorded state, carries out other actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wam.data.windows import WindowDataset
from wam.evaluation.replay import environment_of, open_environment
from wam.geometry.grid import VoxelConfig
from wam.simulation.environment import Environment

SIM_STATE = "sim.state"


@dataclass(frozen=True, kw_only=True)
class Branches:
    """What came of M action sequences from one state. frames (M, V, T, H, W, 3) uint8; filled (M, 1 + T, X, Y, Z) bool, the
    present first, or None where no grid was asked for."""

    frames: np.ndarray
    filled: np.ndarray | None = None


def branch(
    environment: Environment,
    state: np.ndarray,
    actions: np.ndarray,
    *,
    offsets: Sequence[int],
    cameras: Sequence[str],
    grid: VoxelConfig | None = None,
) -> Branches:
    """Carry out each of M action sequences (M, L, A) from a state of the environment and look after `offsets` steps.

    A sequence that ends before the last offset goes on with its last action.
    """
    frames, filled = [], []
    for sequence in actions:
        environment.set_state(state)
        seen: list[np.ndarray] = []
        cells = [] if grid is None else [environment.occupied(grid)]
        for step in range(max(offsets)):
            due = step + 1 in offsets
            result = environment.step(sequence[min(step, len(sequence) - 1)], render=due)
            if due and result.observation is not None:
                seen.append(np.stack([result.observation.images[c] for c in cameras]))
                if grid is not None:
                    cells.append(environment.occupied(grid))
        frames.append(np.stack(seen, axis=1))
        filled.append(cells)
    return Branches(frames=np.stack(frames), filled=None if grid is None else np.array(filled))


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
        found = branch(environment, state, chunks, offsets=windows.spec.future, cameras=windows.cameras)
        environment.close()
        futures.append(found.frames)
    return np.stack(futures)
