"""PushT (gym-pusht): a disc pushes a T-shaped block onto its outline, seen from above and drawn in software.

An action is where the disc shall go, in pixels of a 512 x 512 field. The state is the disc's position: the block has to
be seen. There is no expert.
"""

from __future__ import annotations

import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before pygame is imported: no display is looked for
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

from collections.abc import Sequence

import numpy as np
from gym_pusht.envs.pusht import PushTEnv

from wam.contracts import ActionSpace, Observation, WamError, expected
from wam.geometry.grid import VoxelConfig
from wam.simulation.actions import checked_action
from wam.simulation.cameras import Camera
from wam.simulation.environment import StepResult
from wam.simulation.instructions import sentences

NAMES = ("pusht/pusht",)
CAMERA = "top"
HORIZON = 300  # simulator steps, as in the published protocol


class PushT:
    """PushT as an `Environment`; see `make_environment` for the arguments. Its one camera is called `top`."""

    name = NAMES[0]
    cameras = (CAMERA,)
    state_dim = 2
    state_names = ("agent_x", "agent_y")

    def __init__(
        self,
        *,
        cameras: Sequence[str | Camera] | None = None,
        image_size: int | tuple[int, int] = 64,
        action_repeat: int = 1,
        max_steps: int | None = None,
        renderer: str = "raycast",
        depth: bool = False,
    ) -> None:
        if cameras is not None and list(cameras) != [CAMERA]:
            raise expected(f"the camera {CAMERA!r}", got=cameras, do="leave `cameras` out")
        if renderer != "raycast" or depth:
            raise expected("PushT's own renderer and no depth", got=f"{renderer!r}, depth {depth}", do="leave both out")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.instruction = sentences(self.name)[0][0]
        self.max_steps = max_steps or HORIZON // action_repeat
        self._env = PushTEnv(obs_type="state", observation_width=width, observation_height=height)
        self._repeat, self._steps, self._ready = action_repeat, 0, False
        self.action_space = ActionSpace(
            names=("x", "y"),
            units=("pixel", "pixel"),
            low=(0.0, 0.0),
            high=(512.0, 512.0),
            kind="absolute",
            rate_hz=self._env.control_hz / action_repeat,
        )

    def reset(self, seed: int) -> Observation:
        self._env.reset(seed=int(seed))
        self._steps, self._ready = 0, True
        return self.observe()

    def step(self, action: np.ndarray, *, render: bool = True) -> StepResult:
        self._require_reset()
        if self._steps >= self.max_steps:
            raise expected(f"at most {self.max_steps} steps an episode", got="one more", do="call reset(seed) first")
        action = checked_action(action, self.action_space)
        success, reward = False, 0.0
        for _ in range(self._repeat):
            _, gained, reached, _, _ = self._env.step(action.astype(float))
            success |= bool(reached)
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
        return Observation(
            images={CAMERA: np.ascontiguousarray(self._env._render())},
            state=self.robot_state(),
            instruction=self.instruction,
            timestamp=self._steps / self.action_space.rate_hz,
        )

    def robot_state(self) -> np.ndarray:
        self._require_reset()
        return np.array(self._env.agent.position, np.float32)

    def get_state(self) -> np.ndarray:
        """[steps, then position, velocity, angle, angular velocity of disc and block].

        Impulses kept by the contact solver are not part of it: a replay that starts during a contact is close to the
        original (within a pixel or so), and equal to any other replay of the same state.
        """
        self._require_reset()
        values = [float(self._steps)]
        for body in (self._env.agent, self._env.block):
            values += [*body.position, *body.velocity, body.angle, body.angular_velocity]
        return np.array(values)

    def set_state(self, state: np.ndarray) -> None:
        state = np.asarray(state, float)
        if state.shape != (13,) or not np.isfinite(state).all():
            raise expected(
                f"a state of {self.name} (13 finite numbers)",
                got=f"shape {state.shape}",
                do="give one that get_state() of the same environment returned",
            )
        self._env._setup()  # a new space, so that no contact of another moment remains
        self._steps, self._ready = int(state[0]), True
        for body, values in ((self._env.agent, state[1:7]), (self._env.block, state[7:])):
            x, y, vx, vy, angle, spin = (float(value) for value in values)
            body.angle, body.position = angle, (x, y)  # turning moves the position, so it comes first
            body.velocity, body.angular_velocity = (vx, vy), spin
            self._env.space.reindex_shapes_for_body(body)

    def occupied(self, grid: VoxelConfig) -> np.ndarray:
        raise expected("a world with three dimensions for voxels", got=self.name, do="use a Meta-World task")

    painted = occupied

    def expert_action(self) -> np.ndarray:
        raise WamError("expected an environment with a scripted expert, got pusht/pusht; collect play there")

    def close(self) -> None:
        self._env.close()

    def _require_reset(self) -> None:
        if not self._ready:
            raise expected("an environment that was reset", got=f"a fresh {self.name}", do="call reset(seed) first")
