"""A toy environment for lerobot-eval that keeps what it showed and what it was told to do."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

CAMERAS, SIDE, LENGTH = ("side", "above"), 24, 8


class Toy(gym.Env[dict[str, Any], np.ndarray]):
    """Random pictures and states; every episode of LENGTH steps succeeds, and is written to the file that TOY_KEEPS names."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    task, task_description, _max_episode_steps = "toy", "open the faucet", LENGTH

    def __init__(self, **_: Any) -> None:
        image = gym.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        pixels = gym.spaces.Dict(dict.fromkeys(CAMERAS, image))
        self.observation_space = gym.spaces.Dict({"pixels": pixels, "agent_pos": gym.spaces.Box(-1, 1, (4,))})
        self.action_space = gym.spaces.Box(-1, 1, (4,))

    def reset(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self.kept: list[dict[str, np.ndarray]] = []
        return self._look(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.kept.append({**self.seen, "action": np.array(action)})
        done = len(self.kept) == LENGTH
        if done:
            arrays: dict[str, Any] = {key: np.stack([one[key] for one in self.kept]) for key in self.kept[0]}
            np.savez(os.environ["TOY_KEEPS"], **arrays)
        return self._look(), 0.0, done, False, {"is_success": done}

    def render(self) -> np.ndarray:
        return self.seen["side"].repeat(4, 0).repeat(4, 1)

    def _look(self) -> dict[str, Any]:
        rng = np.random.default_rng(len(self.kept))
        self.seen = {name: rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for name in CAMERAS}
        self.seen["state"] = rng.uniform(-1, 1, 4).astype(np.float32)
        return {"pixels": {name: self.seen[name] for name in CAMERAS}, "agent_pos": self.seen["state"]}


gym.register("gym_toy/toy", Toy)


def _features() -> dict[str, PolicyFeature]:
    pictures = {f"pixels/{name}": PolicyFeature(FeatureType.VISUAL, (SIDE, SIDE, 3)) for name in CAMERAS}
    numbers = {
        "action": PolicyFeature(FeatureType.ACTION, (4,)),
        "agent_pos": PolicyFeature(FeatureType.STATE, (4,)),
    }
    return numbers | pictures


def _keys() -> dict[str, str]:
    pictures = {f"pixels/{name}": f"observation.images.{name}" for name in CAMERAS}
    return {"action": "action", "agent_pos": "observation.state"} | pictures


@EnvConfig.register_subclass("toy")
@dataclass
class ToyEnv(EnvConfig):
    task: str | None = "toy"
    features: dict[str, PolicyFeature] = field(default_factory=_features)
    features_map: dict[str, str] = field(default_factory=_keys)

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {}
