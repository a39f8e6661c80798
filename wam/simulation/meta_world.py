"""Meta-World's fifty tasks on MuJoCo, seen through ray-cast cameras.

An action moves the hand's target by up to one centimetre per simulator step and opens or closes the gripper. The
state is what a robot feels: the hand's position and velocity and the gripper's opening; where objects are has to be
seen. The velocity matters to futures: one frame does not tell how the hand moves now, and it goes on moving.
"""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "disabled")  # before mujoco is imported: no OpenGL is looked for

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import mujoco
import numpy as np
from gymnasium.spaces import Box
from metaworld import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from wam.contracts import ActionSpace, Observation, expected
from wam.geometry.grid import VoxelConfig
from wam.simulation.actions import checked_action
from wam.simulation.cameras import Camera, choose_cameras
from wam.simulation.environment import StepResult
from wam.simulation.instructions import sentences
from wam.simulation.raycast import Marker
from wam.simulation.renderers import make_renderer
from wam.simulation.shading import geom_colours, geom_kinds
from wam.simulation.solids import Solids

warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")  # experts; actions are clipped anyway

HORIZON = 500  # simulator steps, Meta-World's own
STATE_LENGTH = 96  # of get_state(), for every task
#: Tasks whose goal is a point in space that no object shows. Others get no marker, which would give away which of
#: two tasks in one scene is meant.
_MARKED = frozenset(
    f"{task}-v3"
    for task in (
        "coffee-pull",
        "coffee-push",
        "pick-out-of-hole",
        "pick-place",
        "pick-place-wall",
        "push",
        "push-back",
        "push-wall",
        "reach",
        "reach-wall",
        "stick-pull",
        "stick-push",
        "sweep",
    )
)
#: Both faucet tasks draw the faucet's place from the wider of their two ranges, so that the start gives no task away.
_SHARED_RANGE = {"faucet-open-v3": ((-0.1, 0.8, 0.0), (0.1, 0.85, 0.0))}
_EXPERTS: dict[str, Any] = dict(ENV_POLICY_MAP)
_PHYSICS = (
    mujoco.mjtState.mjSTATE_FULLPHYSICS
    | mujoco.mjtState.mjSTATE_WARMSTART
    | mujoco.mjtState.mjSTATE_CTRL
    | mujoco.mjtState.mjSTATE_MOCAP_POS
    | mujoco.mjtState.mjSTATE_MOCAP_QUAT
)


def task_names() -> tuple[str, ...]:
    return tuple(ALL_V3_ENVIRONMENTS)


class MetaWorld:
    """One Meta-World task as an `Environment`; see `make_environment` for the arguments."""

    state_dim = 7
    state_names = ("hand_x", "hand_y", "hand_z", "gripper_opening", "velocity_x", "velocity_y", "velocity_z")

    def __init__(
        self,
        task: str,
        *,
        cameras: Sequence[str | Camera] | None = None,
        image_size: int | tuple[int, int] = 64,
        action_repeat: int = 2,
        max_steps: int | None = None,
        renderer: str = "raycast",
        depth: bool = False,
    ) -> None:
        self.name, self.task = f"metaworld/{task}", task
        self.instruction = sentences(task)[0][0]
        self.views = {camera.name: camera for camera in choose_cameras(cameras, image_size=image_size)}
        self.cameras = tuple(self.views)
        self.max_steps = max_steps or HORIZON // action_repeat
        self._repeat, self._with_depth, self._steps = action_repeat, depth, 0
        self._env = _goal_observing(task)
        self._expert = _EXPERTS[task]()
        self._renderer = make_renderer(renderer, self._env.model, self._env.data, tuple(self.views.values()))
        self._solids: Solids | None = None
        self._draw = np.zeros(0)  # the random vector that decides the start; empty before the first reset
        self._seen = np.zeros(0)  # what the expert looks at
        self.action_space = ActionSpace(
            names=("x", "y", "z", "gripper"),
            units=(*[f"{action_repeat} cm"] * 3, "effort"),
            low=(-1.0,) * 4,
            high=(1.0,) * 4,
            kind="delta",
            rate_hz=1.0 / (self._env.dt * action_repeat),
            gripper="gripper",
            gripper_closed_high=True,
        )

    def reset(self, seed: int) -> Observation:
        env = self._env
        env.seed(int(seed))
        env._freeze_rand_vec = False
        mujoco.mj_resetData(env.model, env.data)
        env.reset_model()
        self._begin(np.array(env._last_rand_vec, float))
        return self.observe()

    def step(self, action: np.ndarray, *, render: bool = True) -> StepResult:
        self._require_reset()
        if self._steps >= self.max_steps:
            raise expected(f"at most {self.max_steps} steps an episode", got="one more", do="call reset(seed) first")
        action = checked_action(action, self.action_space)
        success, reward = False, 0.0
        for _ in range(self._repeat):
            self._seen, gained, _, _, info = self._env.step(action)
            success |= bool(info["success"])
            reward += float(gained)
        self._steps += 1
        return StepResult(
            observation=self.observe() if render else None,
            success=success,
            reward=reward,
            done=success or self._steps >= self.max_steps,
        )

    def observe(self) -> Observation:
        self._require_reset()
        pictures = {name: self._renderer.render(name, markers=self.markers) for name in self.cameras}
        return Observation(
            images={name: picture.rgb for name, picture in pictures.items()},
            state=self.robot_state(),
            instruction=self.instruction,
            intrinsics={name: camera.intrinsics for name, camera in self.views.items()},
            extrinsics={name: camera.extrinsics for name, camera in self.views.items()},
            depth={name: picture.depth for name, picture in pictures.items()} if self._with_depth else None,
            timestamp=self._steps / self.action_space.rate_hz,
        )

    @property
    def markers(self) -> tuple[Marker, ...]:
        """The goal as a ball, where nothing else shows it."""
        if self.task not in _MARKED:
            return ()
        x, y, z = (float(value) for value in self._env._target_pos)
        return (Marker(position=(x, y, z)),)

    def robot_state(self) -> np.ndarray:
        self._require_reset()
        return np.concatenate([self._seen[:4], self.hand_velocity]).astype(np.float32)

    def get_state(self) -> np.ndarray:
        """[length of the start's random vector, that vector, steps, MuJoCo's state with mocap and warm start, zeros].

        The zeros make it equally long for all fifty tasks, so that they fit in one dataset.
        """
        self._require_reset()
        known = np.concatenate([[len(self._draw)], self._draw, [self._steps], self._physics()])
        return np.pad(known, (0, STATE_LENGTH - len(known)))

    def set_state(self, state: np.ndarray) -> None:
        env = self._env
        state = np.array(state, float)  # MuJoCo wants it writeable
        drawn, size = env._random_reset_space.low.size, mujoco.mj_stateSize(env.model, _PHYSICS)
        right = state.shape == (STATE_LENGTH,) and np.isfinite(state).all() and state[0] == drawn
        if not right or state[2 + drawn + size :].any():
            raise expected(
                f"a state of {self.name} ({STATE_LENGTH} finite numbers)",
                got=f"shape {state.shape}" + (" of another task or with gaps" if len(state) == STATE_LENGTH else ""),
                do="give one that get_state() of the same environment returned",
            )
        if not np.array_equal(self._draw, state[1 : 1 + drawn]):
            self._begin(state[1 : 1 + drawn].copy())
        self._steps = int(state[1 + drawn])
        mujoco.mj_setState(env.model, env.data, state[2 + drawn : 2 + drawn + size], _PHYSICS)
        self._look()  # which moves the solver's warm start, so that the state is set once more
        mujoco.mj_setState(env.model, env.data, state[2 + drawn : 2 + drawn + size], _PHYSICS)

    def expert_action(self) -> np.ndarray:
        self._require_reset()
        return np.clip(self._expert.get_action(self._seen), -1, 1).astype(np.float32)

    def occupied(self, grid: VoxelConfig) -> np.ndarray:
        return self._filled(grid) >= 0

    def painted(self, grid: VoxelConfig) -> np.ndarray:
        return self._palette[self._filled(grid)]

    @cached_property
    def _palette(self) -> np.ndarray:
        """(geoms + 1, 4) uint8: colour and kind of each, zeros for the last, -1, which is of what nothing fills."""
        model = self._env.model
        palette = np.column_stack([(255 * geom_colours(model)).round(), geom_kinds(model)]).astype(np.uint8)
        palette[-1] = 0
        return palette

    def _filled(self, grid: VoxelConfig) -> np.ndarray:
        """(X, Y, Z) int32: the geom in each voxel, -1: none."""
        self._require_reset()
        if self._solids is None or self._solids.grid != grid:
            self._solids = Solids(self._env.model, grid)
        return self._solids.fill(self._env.data)

    def close(self) -> None:
        self._renderer.close()

    @property
    def hand_position(self) -> np.ndarray:
        """(3,) metres, the truth."""
        return self._env.data.body("hand").xpos.copy()

    @property
    def hand_velocity(self) -> np.ndarray:
        """(3,) metres per second along the world's axes, the truth."""
        turning_and_moving, model, data = np.zeros(6), self._env.model, self._env.data
        body = data.body("hand").id
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, turning_and_moving, 0)
        return turning_and_moving[3:]

    def _begin(self, draw: np.ndarray) -> None:
        """Put everything at the start that a random vector means; nothing of the episode before remains."""
        env = self._env
        self._draw, self._steps = draw, 0
        env._last_rand_vec, env._freeze_rand_vec = draw.copy(), True
        env.reset()
        self._look()

    def _look(self) -> None:
        """Forward kinematics, without which moved bodies stay where they were, and the expert's observation."""
        env = self._env
        mujoco.mj_forward(env.model, env.data)
        still = (env.model.body_parentid == 0) & (env.model.body_dofnum == 0) & (env.model.body_mocapid < 0)
        assert np.allclose(env.data.xpos[still], env.model.body_pos[still]), "bodies are not where the model says"
        env.curr_path_length = 0
        space = env.sawyer_observation_space
        self._seen = np.clip(env._get_obs(), space.low, space.high)

    def _physics(self) -> np.ndarray:
        state = np.empty(mujoco.mj_stateSize(self._env.model, _PHYSICS))
        mujoco.mj_getState(self._env.model, self._env.data, state, _PHYSICS)
        return state

    def _require_reset(self) -> None:
        if not len(self._draw):
            raise expected("an environment that was reset", got=f"a fresh {self.name}", do="call reset(seed) first")


def _goal_observing(task: str) -> Any:
    """The simulator's environment, its goal in view of the expert and its start drawn from a seed."""
    env = ALL_V3_ENVIRONMENTS[task]()
    env._partially_observable = False
    env.__dict__.pop("sawyer_observation_space", None)  # cached with the goal hidden: it would clip the goal to zero
    env._set_task_called = True
    env.seeded_rand_vec = True
    env.max_path_length = 10**9  # steps are counted here
    if task in _SHARED_RANGE:
        low, high = _SHARED_RANGE[task]
        env._random_reset_space = Box(np.array(low), np.array(high), dtype=np.float64)
    return env
