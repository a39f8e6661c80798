"""Samplers: solve dx/dsigma = velocity for several streams at once, each along its own falling clocks.

`euler` costs one network call per step, `heun` two (none extra on a last step that lands on sigma 0). A scheduler
object of diffusers (FlowMatchEulerDiscreteScheduler and its kin) may stand in for either, one object per stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from wam.contracts import expected

Signals = dict[str, Tensor]
VelocityField = Callable[[Signals, dict[str, Tensor]], Signals]
"""(signals at their clocks, clocks (scalars) by stream) -> velocity of each wanted stream."""

AfterStep = Callable[[int, Signals, dict[str, Tensor]], Signals]
"""(number of the step, signals after it, clocks before it) -> the signals that go on."""

SAMPLERS = ("euler", "heun")


def integrate(
    velocity: VelocityField,
    signals: Signals,
    clocks: Mapping[str, Tensor],
    *,
    sampler: str = "euler",
    path: list[Signals] | None = None,
    after: AfterStep | None = None,
) -> Signals:
    """Carry each stream in `signals` from `clocks[s][0]` to `clocks[s][-1]`; every stream has the same number of steps.

    path: takes the signals at every clock, the first and the last included. after: is asked after every step.
    """
    if sampler not in SAMPLERS:
        raise expected(f"a sampler among {', '.join(SAMPLERS)}", got=repr(sampler), do="name one of them")
    steps = {len(sigmas) - 1 for sigmas in clocks.values()}
    if len(steps) != 1:
        raise expected("the same number of steps for every stream", got=sorted(steps), do="lay clocks out together")
    if path is not None:
        path.append(signals)
    for step in range(steps.pop()):
        now = {s: sigmas[step] for s, sigmas in clocks.items()}
        then = {s: sigmas[step + 1] for s, sigmas in clocks.items()}
        slope = velocity(signals, now)
        ahead = {s: x + (then[s] - now[s]) * slope[s] for s, x in signals.items()}
        if sampler == "heun" and any(float(sigma) > 0 for sigma in then.values()):
            slope_ahead = velocity(ahead, then)
            ahead = {s: x + (then[s] - now[s]) * (slope[s] + slope_ahead[s]) / 2 for s, x in signals.items()}
        signals = ahead if after is None else after(step, ahead, now)
        if path is not None:
            path.append(signals)
    return signals


def integrate_with_schedulers(
    velocity: VelocityField, signals: Signals, schedulers: Mapping[str, Any], *, after: AfterStep | None = None
) -> Signals:
    """The same with diffusers scheduler objects, one per stream, whose `set_timesteps` has been called."""
    counts = {len(scheduler.timesteps) for scheduler in schedulers.values()}
    if len(counts) != 1:
        raise expected("schedulers with equally many timesteps", got=sorted(counts), do="call set_timesteps alike")
    for step in range(counts.pop()):
        times = {s: schedulers[s].timesteps[step] for s in signals}
        clocks = {s: t.float() / schedulers[s].config.num_train_timesteps for s, t in times.items()}
        slope = velocity(signals, clocks)
        signals = {s: schedulers[s].step(slope[s], times[s], x, return_dict=False)[0] for s, x in signals.items()}
        if after is not None:
            signals = after(step, signals, clocks)
    return signals


def initial_noise(shape: tuple[int, ...], *, seed: int, device: torch.device) -> Tensor:
    """Noise drawn on the CPU from its own generator, so that a seed gives the same future on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
