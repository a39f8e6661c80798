"""What every environment offers, and the door to all of them: `make_environment(name)`.

Names are "family/task": `metaworld/faucet-open-v3` (fifty tasks) or `pusht/pusht`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

import numpy as np

from wam.contracts import ActionSpace, Observation, WamError, expected
from wam.geometry.grid import VoxelConfig
from wam.simulation.cameras import Camera


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step brings. observation is None where the step was not rendered; done: success or out of steps."""

    observation: Observation | None
    success: bool
    reward: float
    done: bool


class Environment(Protocol):
    """One robot in one scene with one task.

    name: as given to `make_environment`. cameras: the names of the images. action_space: of dimension A, its rate being
    that of `step`. state_dim: S. state_names: what each state dimension is. instruction: the sentence of the task.
    max_steps: after so many steps an episode is over.
    """

    @property
    def name(self) -> str: ...
    @property
    def cameras(self) -> tuple[str, ...]: ...
    @property
    def action_space(self) -> ActionSpace: ...
    @property
    def state_dim(self) -> int: ...
    @property
    def state_names(self) -> tuple[str, ...]: ...
    @property
    def instruction(self) -> str: ...
    @property
    def max_steps(self) -> int: ...

    def reset(self, seed: int) -> Observation:
        """Start anew; the same seed gives the same start."""

    def step(self, action: np.ndarray, *, render: bool = True) -> StepResult:
        """Act (A,), clipped to the limits. Raises WamError on a wrong shape or a number that is not finite."""

    def observe(self) -> Observation:
        """Render the present."""

    def robot_state(self) -> np.ndarray:
        """(S,) float32: what the robot feels now, without rendering."""

    def get_state(self) -> np.ndarray:
        """Everything that decides the future, flat float64: physics, task and step count."""

    def set_state(self, state: np.ndarray) -> None:
        """Return to a state of this environment, or of another one of the same name."""

    def occupied(self, grid: VoxelConfig) -> np.ndarray:
        """(X, Y, Z) bool: the voxels that something visible fills now. Raises WamError where the world is flat."""

    def painted(self, grid: VoxelConfig) -> np.ndarray:
        """(X, Y, Z, 4) uint8: the colour of what fills each voxel and what it is, as `wam.geometry.surface` says; zeros where
        nothing does. Raises as above."""

    def expert_action(self) -> np.ndarray:
        """(A,) float32: what a scripted expert would do now. Raises WamError where there is no expert."""

    def close(self) -> None: ...


def environment_names() -> tuple[str, ...]:
    """Every environment that can be made. Raises WamError if a simulator is not installed."""
    from wam.simulation import meta_world, pusht

    return (*(f"metaworld/{task}" for task in meta_world.task_names()), *pusht.NAMES)


def make_environment(
    name: str,
    *,
    cameras: Sequence[str | Camera] | None = None,
    image_size: int | tuple[int, int] = 64,
    action_repeat: int | None = None,
    max_steps: int | None = None,
    renderer: str = "raycast",
    depth: bool = False,
) -> Environment:
    """An environment by name.

    cameras: names or cameras, None for the family's default; image_size: pixels, or (height, width);
    action_repeat: simulator steps a step, None for the family's default (Meta-World 2, which is 40 Hz; PushT 1);
    max_steps: None for the task's own horizon; renderer: `raycast`, or `egl` or `osmesa` where installed;
    depth: observations carry depth too.
    Raises WamError on an unknown name (with the nearest one), option or missing package.
    """
    if (action_repeat is not None and action_repeat < 1) or (max_steps is not None and max_steps < 1):
        raise expected(
            "action_repeat and max_steps of at least 1", got=f"{action_repeat} and {max_steps}", do="raise them"
        )
    family, _, task = name.partition("/")
    try:
        if family == "metaworld":
            from wam.simulation import meta_world

            if task in meta_world.task_names():
                return meta_world.MetaWorld(
                    task,
                    cameras=cameras,
                    image_size=image_size,
                    action_repeat=action_repeat or 2,
                    max_steps=max_steps,
                    renderer=renderer,
                    depth=depth,
                )
        elif family == "pusht":
            from wam.simulation import pusht

            if name in pusht.NAMES:
                return pusht.PushT(
                    cameras=cameras,
                    image_size=image_size,
                    action_repeat=action_repeat or 1,
                    max_steps=max_steps,
                    renderer=renderer,
                    depth=depth,
                )
        known = environment_names()
    except ModuleNotFoundError as error:
        raise WamError(
            f"expected the simulators to be installed, got no module {error.name!r}; run pip install 'wam[sim]'"
        ) from error
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    near = near or get_close_matches(f"metaworld/{task or name}-v3", known, n=1, cutoff=0.75)
    hint = f"did you mean {near[0]!r}?" if near else f"choose among {', '.join(known[:3])}, ..., {known[-1]}"
    raise expected("the name of an environment", got=repr(name), do=hint)
