"""On which side to pass a box: beside the way that the policy dreams it would take, where that way swings out.

A hand that swings out to one side goes around something, such as the handle that it will push from behind. The inside of that
curve is where it must not go, and a chunk, which ends before the curve does, cannot tell. So the model dreams the policy's
own way to its end: actions, the frames that come of them, actions for those frames.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from wam.contracts import Observation, expected
from wam.control.keep_out import Box, LinearMotion, Side
from wam.control.wam_policy import WamPolicy
from wam.model.wam import WorldActionModel


def dreamed_way(
    policy: WamPolicy,
    motion: LinearMotion,
    seen: Observation,
    *,
    place: slice,
    velocity: slice,
    hops: int = 4,
) -> np.ndarray:
    """(T, 3): where the hand is now, and where the policy would take it, unsteered, as its model foresees frames and
    `motion` the hand. place, velocity: of the hand in the state, metres and metres a second. hops: how often frames are
    dreamed before the last chunk; each goes as far ahead as the model's last frame. The policy forgets what it was shown.

    Raises WamError if the policy's model foresees no frames, sees no state, or does not know its rate.
    """
    model = policy.model
    if not isinstance(model, WorldActionModel) or "future" not in model.config.streams:
        raise expected("a policy whose model foresees frames", got="one that does not", do="name the side")
    if seen.state is None or model.action_space is None:
        raise expected(
            "a state with the hand's place, and actions of a known rate",
            got="no state" if seen.state is None else "no rate",
            do="give the robot's state, and train on data that tell their action space",
        )
    rate_hz, felt = model.action_space.rate_hz, np.array(seen.state, np.float32)
    ahead = min(model.config.future[-1], policy.chunk)
    way = [felt[None, place]]
    steer, policy.steer = policy.steer, None
    try:
        for _ in range(hops):
            chunk, led = _led(policy, motion, seen, place, velocity)
            frames = policy.foresee(seen, chunk)
            assert frames is not None  # of a model with a future
            way.append(led[:ahead])
            felt = felt.copy()
            felt[place], felt[velocity] = led[ahead - 1], (led[ahead - 1] - led[ahead - 2]) * rate_hz
            images = {name: frames[view, -1] for view, name in enumerate(policy.cameras)}
            seen = replace(seen, images=images, state=felt)
        return np.concatenate([*way, _led(policy, motion, seen, place, velocity)[1]])
    finally:
        policy.steer = steer
        policy.reset()


def _led(
    policy: WamPolicy, motion: LinearMotion, seen: Observation, place: slice, velocity: slice
) -> tuple[np.ndarray, np.ndarray]:
    """The policy's chunk (K, A), and where it leads the hand (K, 3)."""
    chunk, state = policy.act([seen]), torch.from_numpy(np.asarray(seen.state, np.float32))[None]
    return chunk[0], motion.way(state[:, place], state[:, velocity], torch.from_numpy(chunk))[0].numpy()


def outer_side(way: np.ndarray, box: Box) -> Side:
    """The side of a box on a way (T, 3) that lies outside of the way's curve, to the left or the right of where it goes there.

    Above is left out: a hand often has to come down behind the box.
    """
    middle = (np.array(box.low) + box.high) / 2
    nearest = int(np.linalg.norm(way - middle, axis=1).argmin())
    going = way[min(nearest + 3, len(way) - 1), :2] - way[max(nearest - 3, 0), :2]
    across = 1 - int(np.abs(going).argmax())
    chord = way[-1, :2] - way[0, :2]
    share = float(np.clip((middle[:2] - way[0, :2]) @ chord / max(float(chord @ chord), 1e-9), 0, 1))
    out = middle[across] - (way[0, across] + share * chord[across])
    return ("-x", "-y")[across] if out < 0 else ("+x", "+y")[across]
