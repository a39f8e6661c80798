"""Clocks: how noise levels are drawn in training and laid out in sampling, one per stream.

A training **conditional** says, per noisy stream, how its clock is drawn:

    clean          0: the stream is given
    noise          1: the stream is absent or entirely wanted, and says nothing
    draw           from the stream's own distribution (`ClockConfig`)
    shared         one common draw for every stream that says `shared` (as in UVA, DreamZero's first stage)
    dropped        the stream's tokens are removed: not computed at all

so `forward_dynamics` is {action: clean, future: draw}, `policy` is {action: draw, future: dropped}, and the
couplings of the field (shared, independent, decoupled) are rows of a table and not code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wam.contracts import expected

RULES = ("clean", "noise", "draw", "shared", "dropped")


@dataclass(frozen=True, kw_only=True)
class ClockConfig:
    """A distribution of clocks over [0, 1].

    distribution: ``uniform``, ``logit_normal`` (SD3) with `mean` and `std` of the logit, or ``beta`` with `alpha` and
    `beta` (DreamZero's video clock is beta(7, 1): nearly always high noise).
    shift: s in sigma' = s sigma / (1 + (s - 1) sigma); above 1 moves mass to high noise.
    full_noise: share of draws set to exactly 1, where sampling starts.
    sampling_shift: by which sampling lays its steps; 0 takes `shift`. A few steps do better at high noise, where a sample
    stays near the mean, while training at all clocks also teaches a stream to be read when it is given.
    """

    distribution: str = "uniform"
    mean: float = 0.0
    std: float = 1.0
    alpha: float = 7.0
    beta: float = 1.0
    shift: float = 1.0
    full_noise: float = 0.0
    sampling_shift: float = 0.0

    def __post_init__(self) -> None:
        if self.distribution not in ("uniform", "logit_normal", "beta"):
            raise expected(
                "a clock distribution among uniform, logit_normal, beta",
                got=repr(self.distribution),
                do="set `distribution` to one of them",
            )


def shift_clock(sigma: Tensor, shift: float) -> Tensor:
    return shift * sigma / (1 + (shift - 1) * sigma)


def draw_clock(size: int, config: ClockConfig, *, generator: torch.Generator) -> Tensor:
    """(B,) clocks in [0, 1] from the configured distribution, on the CPU."""
    uniform = torch.rand(size, generator=generator)
    if config.distribution == "logit_normal":
        sigma = torch.sigmoid(config.mean + config.std * torch.randn(size, generator=generator))
    elif config.distribution == "beta":
        gammas = [_gamma(shape, size, generator) for shape in (config.alpha, config.beta)]
        sigma = gammas[0] / (gammas[0] + gammas[1])
    else:
        sigma = uniform
    sigma = shift_clock(sigma, config.shift)
    if config.full_noise > 0:
        sigma = torch.where(torch.rand(size, generator=generator) < config.full_noise, torch.ones(()), sigma)
    return sigma.clamp(0, 1)


def _gamma(shape: float, size: int, generator: torch.Generator) -> Tensor:
    return torch._standard_gamma(torch.full((size,), float(shape)), generator=generator)


def draw_clocks(
    rules: Mapping[str, str], configs: Mapping[str, ClockConfig], size: int, *, generator: torch.Generator
) -> dict[str, Tensor]:
    """Clocks (B,) for every stream whose rule is not `dropped`. Every rule consumes the generator alike, so that a
    change of one stream's rule leaves the other streams' draws as they were."""
    shared = torch.rand(size, generator=generator)
    clocks: dict[str, Tensor] = {}
    for stream in sorted(rules):
        rule, own = rules[stream], draw_clock(size, configs[stream], generator=generator)
        if rule not in RULES:
            raise expected(f"a clock rule among {', '.join(RULES)}", got=f"{rule!r} for {stream!r}", do="name one")
        if rule != "dropped":
            clocks[stream] = {
                "clean": torch.zeros(size),
                "noise": torch.ones(size),
                "draw": own,
                "shared": shift_clock(shared, configs[stream].shift),
            }[rule]
    return clocks


def sampling_clocks(steps: int, *, shift: float = 1.0, start: float = 1.0, end: float = 0.0) -> Tensor:
    """(steps + 1,) falling clocks from `start` to `end`: what a stream's noise level is before each step and after the
    last. A stream that is given keeps 0, one that stays unsaid keeps 1; `end` above 0 leaves a stream noisy (decoupled)."""
    if steps < 1:
        raise expected("at least one sampling step", got=steps, do="set `steps` to 1 or more")
    return shift_clock(torch.linspace(start, end, steps + 1), shift)


def decoupled_clocks(steps: int, *, shift: float = 1.0, stop: float) -> Tensor:
    """(steps + 1,) clocks that fall from 1 to `stop` and no lower, laid by the shift: of a stream that stays noisy while
    another comes clean in these steps. Source: DreamZero-Flash, where video stays at high noise beside actions."""
    if not 0 <= stop <= 1:
        raise expected("a clock from 0 to 1 to stop at", got=stop, do="name one within")
    unshifted = float(shift_clock(torch.tensor(stop, dtype=torch.float64), 1 / shift))
    return sampling_clocks(steps, shift=shift, end=unshifted)
