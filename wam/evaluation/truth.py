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
    present first, or None where no grid was asked for; colours (M, 1 + T, X, Y, Z, 4) uint8 of it, where they were."""

    frames: np.ndarray
    filled: np.ndarray | None = None
    colours: np.ndarray | None = None


def branch(
    environment: Environment,
    state: np.ndarray,
    actions: np.ndarray,
    *,
    offsets: Sequence[int],
    cameras: Sequence[str],
    grid: VoxelConfig | None = None,
    colour: bool = False,
) -> Branches:
    """Carry out each of M action sequences (M, L, A) from a state of the environment and look after `offsets` steps. colour:
    of the grid's voxels too.

    A sequence that ends before the last offset goes on with its last action.
    """

    def look() -> list[np.ndarray]:
        return [] if grid is None else [environment.painted(grid) if colour else environment.occupied(grid)]

    frames, looks = [], []
    for sequence in actions:
        environment.set_state(state)
        seen: list[np.ndarray] = []
        cells = look()
        for step in range(max(offsets)):
            due = step + 1 in offsets
            result = environment.step(sequence[min(step, len(sequence) - 1)], render=due)
            if due and result.observation is not None:
                seen.append(np.stack([result.observation.images[c] for c in cameras]))
                cells += look()
        frames.append(np.stack(seen, axis=1))
        looks.append(cells)
    if grid is None:
        return Branches(frames=np.stack(frames))
    found = np.array(looks)
    if not colour:
        return Branches(frames=np.stack(frames), filled=found)
    return Branches(frames=np.stack(frames), filled=found[..., 3] > 0, colours=found)


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
