"""Samplers: exact where the maths says so, one order better with Heun, and equal to diffusers' own scheduler."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.diffusion.clocks import sampling_clocks
from wam.diffusion.flow import Parametrisation, target, to_velocity
from wam.diffusion.samplers import Signals, initial_noise, integrate, integrate_with_schedulers

CPU = torch.device("cpu")


class Counted:
    """A velocity field that counts its calls."""

    def __init__(self, field: object) -> None:
        self.field, self.calls = field, 0

    def __call__(self, signals: Signals, clocks: dict[str, torch.Tensor]) -> Signals:
        self.calls += 1
        return {s: self.field(x, clocks[s]) for s, x in signals.items()}  # type: ignore[operator]


@settings(max_examples=30)
@given(st.integers(1, 12), st.sampled_from(["euler", "heun"]), st.sampled_from(["velocity", "x0"]))
def test_a_perfect_network_is_followed_to_the_clean_signal(
    steps: int, sampler: str, parametrisation: Parametrisation
) -> None:
    x, noise = torch.full((2, 3), 0.7), initial_noise((2, 3), seed=steps, device=CPU)

    def field(now: torch.Tensor, clock: torch.Tensor) -> torch.Tensor:
        return to_velocity(target(x, noise, parametrisation), now, clock.expand(2), parametrisation)

    end = integrate(Counted(field), {"a": noise}, {"a": sampling_clocks(steps)}, sampler=sampler)
    torch.testing.assert_close(end["a"], x, atol=1e-5, rtol=1e-5)


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(1, 9))
def test_heun_is_exact_where_the_velocity_changes_at_a_steady_rate(slope: float, offset: float, steps: int) -> None:
    """x' = offset + slope sigma, so from sigma 1 to a noisy end x changes by a parabola."""
    clocks = sampling_clocks(steps, end=0.2).double()
    start = torch.zeros((), dtype=torch.float64)
    end = integrate(Counted(lambda _, clock: offset + slope * clock), {"a": start}, {"a": clocks}, sampler="heun")
    assert end["a"].item() == pytest.approx(offset * (0.2 - 1) + slope * (0.2**2 - 1) / 2, abs=1e-6)


def test_euler_is_of_first_order_and_heun_of_second() -> None:
    """x' = x from sigma 1 to 0.1: halving the step halves Euler's error and quarters Heun's."""

    def error(sampler: str, steps: int) -> float:
        clocks = {"a": torch.linspace(1, 0.1, steps + 1, dtype=torch.float64)}
        end = integrate(Counted(lambda x, _: x), {"a": torch.ones((), dtype=torch.float64)}, clocks, sampler=sampler)
        return abs(end["a"].item() - math.exp(-0.9))

    assert error("euler", 32) / error("euler", 64) == pytest.approx(2, rel=0.1)
    assert error("heun", 32) / error("heun", 64) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(("sampler", "end", "calls"), [("euler", 0.0, 5), ("heun", 0.0, 9), ("heun", 0.2, 10)])
def test_a_sampler_costs_what_it_says(sampler: str, end: float, calls: int) -> None:
    field = Counted(lambda x, _: x)
    integrate(field, {"a": torch.ones(2)}, {"a": sampling_clocks(5, end=end)}, sampler=sampler)
    assert field.calls == calls


def test_every_stream_goes_along_its_own_clocks() -> None:
    seen: list[tuple[float, float]] = []

    def field(signals: Signals, clocks: dict[str, torch.Tensor]) -> Signals:
        seen.append((float(clocks["future"]), float(clocks["action"])))
        return {s: torch.ones_like(x) for s, x in signals.items()}

    clocks = {"future": torch.tensor([1.0, 0.9, 0.8]), "action": torch.tensor([1.0, 0.5, 0.0])}
    end = integrate(field, {"future": torch.zeros(2), "action": torch.zeros(2)}, clocks)
    assert seen == [(1.0, 1.0), (pytest.approx(0.9), 0.5)]
    torch.testing.assert_close(end["future"], torch.full((2,), -0.2))
    torch.testing.assert_close(end["action"], torch.full((2,), -1.0))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_our_euler_is_diffusers_euler(shift: float, steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) / 3
    start = {s: initial_noise((4, 6), seed=i, device=CPU) for i, s in enumerate(("future", "action"))}

    def field(signals: Signals, clocks: dict[str, torch.Tensor]) -> Signals:
        both = torch.tanh((signals["future"] + signals["action"]) @ weight)
        return {s: both * (1 + clocks[s]) - x for s, x in signals.items()}

    schedulers: dict[str, Any] = {}
    for s in start:
        schedulers[s] = FlowMatchEulerDiscreteScheduler(shift=shift)
        schedulers[s].set_timesteps(sigmas=sampling_clocks(steps)[:-1].tolist())
    theirs = integrate_with_schedulers(field, start, schedulers)
    ours = integrate(field, start, dict.fromkeys(start, sampling_clocks(steps, shift=shift)))
    for s in start:
        torch.testing.assert_close(ours[s], theirs[s], atol=1e-5, rtol=1e-5)


def test_noise_repeats_by_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, again, other = (initial_noise((3, 4), seed=seed, device=CPU) for seed in (5, 5, 6))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_what_cannot_be_sampled_says_so() -> None:
    ones = {"a": torch.ones(2), "b": torch.ones(2)}
    with pytest.raises(WamError, match="euler, heun"):
        integrate(Counted(lambda x, _: x), ones, dict.fromkeys(ones, sampling_clocks(2)), sampler="ddim")
    with pytest.raises(WamError, match="same number of steps"):
        integrate(Counted(lambda x, _: x), ones, {"a": sampling_clocks(2), "b": sampling_clocks(3)})
