"""Flow matching: parametrisations say the same thing, the velocity is the slope of the path, masks count what is real."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from wam.diffusion.flow import (
    SMALLEST_CLOCK,
    add_noise,
    clock_weight,
    expand_clock,
    masked_mean,
    target,
    to_clean,
    to_velocity,
)
from wam.diffusion.guidance import guide

seeds = st.integers(0, 2**31)
scales = st.floats(-3, 8)


def pair(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64), torch.randn(shape, generator=g, dtype=torch.float64)


@given(seeds)
def test_clock_zero_is_clean_and_clock_one_is_noise(seed: int) -> None:
    x, noise = pair(seed, 2, 3, 4)
    assert torch.equal(add_noise(x, noise, torch.zeros(2)), x)
    assert torch.equal(add_noise(x, noise, torch.ones(2)), noise)


@given(seeds, st.floats(0, 0.9))
def test_the_velocity_is_the_slope_of_the_path(seed: int, sigma: float) -> None:
    x, noise = pair(seed, 2, 3)
    here, there = (add_noise(x, noise, torch.full((2,), s, dtype=torch.float64)) for s in (sigma, sigma + 0.1))
    torch.testing.assert_close((there - here) / 0.1, target(x, noise, "velocity"))


@given(seeds, st.floats(SMALLEST_CLOCK, 1))
def test_both_parametrisations_carry_the_same_answer(seed: int, sigma: float) -> None:
    x, noise = pair(seed, 2, 3)
    clock = torch.full((2,), sigma, dtype=torch.float64)
    noised = add_noise(x, noise, clock)
    for parametrisation in ("velocity", "x0"):
        answer = target(x, noise, parametrisation)
        torch.testing.assert_close(to_clean(answer, noised, clock, parametrisation), x)
        torch.testing.assert_close(to_velocity(answer, noised, clock, parametrisation), noise - x)


@given(seeds)
def test_an_x0_prediction_at_clock_zero_gives_a_finite_velocity(seed: int) -> None:
    x, wrong = pair(seed, 2, 3)
    assert torch.isfinite(to_velocity(wrong, x, torch.zeros(2), "x0")).all()


def test_a_clock_per_frame_noises_each_frame_by_its_own() -> None:
    x, noise = pair(0, 2, 3, 5)
    clock = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.0, 0.5]], dtype=torch.float64)
    assert expand_clock(clock, x).shape == (2, 3, 1)
    noised = add_noise(x, noise, clock)
    assert torch.equal(noised[0, 0], x[0, 0])
    assert torch.equal(noised[1, 0], noise[1, 0])
    torch.testing.assert_close(noised[0, 1], (x[0, 1] + noise[0, 1]) / 2)


@given(seeds, st.integers(1, 4))
def test_a_masked_mean_is_the_mean_of_what_is_left(seed: int, keep: int) -> None:
    value, _ = pair(seed, 4, 3, 2)
    mask = torch.arange(4) < keep
    torch.testing.assert_close(masked_mean(value, mask), value[:keep].mean())
    torch.testing.assert_close(masked_mean(value, None), value.mean())


def test_a_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(3, 2), torch.zeros(3)) == 0


@given(st.floats(0, 1))
def test_x0_errors_fade_only_where_x0_is_trivial(sigma: float) -> None:
    weight = clock_weight(torch.tensor([sigma]), "x0").item()
    assert 0 <= weight <= 1
    assert weight == 1 if sigma >= 0.2 else weight < 1
    assert clock_weight(torch.tensor([sigma]), "velocity").item() == 1


@given(seeds, scales)
def test_guidance_is_a_line_through_both_velocities(seed: int, scale: float) -> None:
    told, untold = pair(seed, 2, 3)
    guided = guide({"action": told}, {"action": untold}, scale)["action"]
    torch.testing.assert_close(guided - untold, scale * (told - untold))
    torch.testing.assert_close(guide({"action": told}, {"action": untold}, 1.0)["action"], told)
