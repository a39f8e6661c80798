"""A world small enough to know every answer: a bright square that actions push around, and models of it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from wam.contracts import ActionSpace, Batch, Observation

SPACE = ActionSpace(
    names=("x", "y", "z", "gripper"),
    units=("1",) * 4,
    low=(-1.0,) * 4,
    high=(1.0,) * 4,
    kind="delta",
    rate_hz=10,
    gripper="gripper",
)
SIZE, CHUNK = 24, 4


def draw(x: float, y: float) -> np.ndarray:
    """(H, W, 3) uint8 with a square whose centre is at x, y in [-1, 1]."""
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    column, row = (round((v + 1) / 2 * (SIZE - 7)) for v in (np.clip(x, -1, 1), np.clip(y, -1, 1)))
    image[row : row + 6, column : column + 6] = (220, 120, 60)
    return image


def windows(n: int, *, play: bool, seed: int = 0) -> Batch:
    """Windows of the square world: two views, futures after 2 and 4 actions; in play actions are random."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(-0.6, 0.6, (n, 2))
    push = rng.uniform(-0.2, 0.2, (n, 4)) if play else np.concatenate([-start * 0.25, np.zeros((n, 2))], 1)
    action = np.repeat(push[:, None], CHUNK, 1).astype(np.float32)
    present = np.stack([draw(*p) for p in start])
    later = np.stack([[draw(*(p + k * a[:2])) for k in (2, 4)] for p, a in zip(start, push, strict=True)])
    return Batch(
        images=torch.from_numpy(np.stack([present, present[:, ::-1]], 1)[:, :, None].copy()),
        future=torch.from_numpy(np.stack([later, later[:, :, ::-1]], 1).copy()),
        future_mask=torch.ones(n, 2, dtype=torch.bool),
        state=torch.from_numpy(start.astype(np.float32)),
        action=torch.from_numpy(action),
        action_mask=torch.ones(n, CHUNK, dtype=torch.bool),
        instruction=("play" if play else "push the square to the middle",) * n,
    )


def _centre(images: torch.Tensor) -> np.ndarray:
    """(B, 2) of the square in the first view of (B, V, H, W, C)."""
    bright = (images[:, 0, ..., 0] > 100).numpy()
    rows, columns = (np.array([np.flatnonzero(b.any(axis)).min() if b.any() else 0 for b in bright]) for axis in (1, 0))
    return np.stack([columns, rows], 1) / (SIZE - 7) * 2 - 1


class PerfectModel:
    """Sees the square, moves it as told, and reads the motion off the future; without actions it goes to the middle."""

    def sample(self, batch: Batch, given, want, steps, seed):
        assert want[0] not in given
        assert getattr(batch, want[0]) is None, "the model was handed what it is asked for"
        start = _centre(batch.images[:, :, -1])
        move = -start * 0.25
        if "future" in given:
            move = (_centre(batch.future[:, :, -1]) - start) / 4
        if "action" in given:
            move = batch.action[:, 0, :2].numpy()
        if want == ("action",):
            chunk = np.zeros((batch.size, CHUNK, 4), np.float32)
            chunk[..., :2] = move[:, None]
            return SimpleNamespace(future=None, action=torch.from_numpy(chunk))
        later = np.stack([[draw(*(p + k * m)) for k in (2, 4)] for p, m in zip(start, move, strict=True)])
        both = np.stack([later, later[:, :, ::-1]], 1)
        return SimpleNamespace(future=torch.from_numpy(both / 255.0).float(), action=None)


class BlindModel(PerfectModel):
    """Foresees where the expert would go and never looks at the action, nor at the future when asked for one."""

    def sample(self, batch: Batch, given, want, steps, seed):
        blind = tuple(g for g in given if g not in ("action", "future"))
        return super().sample(batch, blind, want, steps, seed)


@dataclass
class SquareEnvironment:
    """Push the square to the middle ("middle") or away from it ("away"); both start alike."""

    name: str
    cameras: tuple[str, ...] = ("front", "back")
    action_space: ActionSpace = SPACE
    state_dim: int = 2
    max_steps: int = 20
    renders: int = 0

    @property
    def instruction(self) -> str:
        return f"push the square {self.name.split('/')[1]}"

    def reset(self, seed: int) -> Observation:
        angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
        self.place = 0.5 * np.array([np.cos(angle), np.sin(angle)])
        self.steps = 0
        return self.observe()

    def observe(self) -> Observation:
        self.renders += 1
        image = draw(*self.place)
        return Observation(
            images={"front": image, "back": image[::-1].copy()},
            state=self.place.astype(np.float32),
            instruction=self.instruction,
        )

    def step(self, action: np.ndarray, render: bool = True):
        assert (np.abs(action) <= 1).all()
        self.place = self.place + 0.1 * action[:2]
        self.steps += 1
        distance = np.linalg.norm(self.place)
        success = bool(distance < 0.1 if self.name.endswith("middle") else distance > 0.9)
        return SimpleNamespace(
            observation=self.observe() if render else None, success=success, reward=float(success), done=False
        )

    def close(self) -> None:
        self.place = None


class ObedientPolicy:
    """Reads the sentence and does what it says."""

    chunk = CHUNK

    def __init__(self) -> None:
        self.batches: list[int] = []

    def reset(self, index: int | None = None) -> None:
        pass

    def act(self, observations) -> np.ndarray:
        self.batches.append(len(observations))
        chunk = np.zeros((len(observations), CHUNK, 4))
        for i, seen in enumerate(observations):
            toward = -1 if seen.instruction.endswith("middle") else 1
            chunk[i, :, :2] = toward * seen.state / np.linalg.norm(seen.state)
        return chunk


class DeafPolicy(ObedientPolicy):
    """Always pushes to the middle, whatever it is told."""

    def act(self, observations) -> np.ndarray:
        return super().act([SimpleNamespace(instruction="middle", state=o.state) for o in observations])


class StillPolicy(ObedientPolicy):
    """Never moves, so that every episode fails."""

    def act(self, observations) -> np.ndarray:
        return 0 * super().act(observations)


def dying_factory(calls_before_death: int = 3) -> ObedientPolicy:
    """A policy whose process is killed in the middle of an evaluation."""
    policy = ObedientPolicy()
    act = policy.act

    def act_or_die(observations):
        if len(policy.batches) >= calls_before_death:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(observations)

    policy.act = act_or_die
    return policy
