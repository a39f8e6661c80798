"""Clocks: draws follow the named distributions, rules tie streams, and one stream's rule never moves another's draw."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wam.contracts import WamError
from wam.diffusion.clocks import (
    RULES,
    ClockConfig,
    decoupled_clocks,
    draw_clock,
    draw_clocks,
    sampling_clocks,
    shift_clock,
)

clocks = st.floats(0, 1)
shifts = st.floats(0.1, 10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(clocks, shifts)
def test_a_shift_keeps_the_ends_and_is_undone_by_its_inverse(sigma: float, shift: float) -> None:
    sigma_ = torch.tensor(sigma, dtype=torch.float64)
    assert shift_clock(torch.zeros(()), shift) == 0
    assert shift_clock(torch.ones(()), shift) == pytest.approx(1)
    assert shift_clock(shift_clock(sigma_, shift), 1 / shift).item() == pytest.approx(sigma, abs=1e-9)


@given(clocks, shifts, shifts)
def test_shifts_compose_by_multiplying(sigma: float, one: float, two: float) -> None:
    sigma_ = torch.tensor(sigma, dtype=torch.float64)
    composed, at_once = shift_clock(shift_clock(sigma_, one), two), shift_clock(sigma_, one * two)
    assert composed.item() == pytest.approx(at_once.item(), abs=1e-9)


@given(st.floats(1.01, 10))
def test_a_shift_above_one_moves_every_clock_towards_noise(shift: float) -> None:
    sigma = torch.linspace(0.01, 0.99, 50)
    shifted = shift_clock(sigma, shift)
    assert (shifted > sigma).all()
    assert (shifted.diff() > 0).all()


@pytest.mark.parametrize(
    ("config", "cdf"),
    [
        (ClockConfig(), stats.uniform().cdf),
        (ClockConfig(distribution="beta", alpha=7, beta=1), stats.beta(7, 1).cdf),
        (
            ClockConfig(distribution="logit_normal", mean=0.3, std=1.2),
            lambda x: stats.norm(0.3, 1.2).cdf(stats.logistic.ppf(x)),
        ),
        (ClockConfig(shift=3.0), lambda x: x / (3 - 2 * x)),
    ],
    ids=["uniform", "beta", "logit-normal", "shifted"],
)
def test_drawn_clocks_follow_the_distribution_they_name(config: ClockConfig, cdf: object) -> None:
    drawn = draw_clock(20_000, config, generator=generator()).numpy()
    assert stats.kstest(drawn, cdf).pvalue > 0.001


def test_a_share_of_draws_is_full_noise() -> None:
    drawn = draw_clock(20_000, ClockConfig(full_noise=0.3), generator=generator())
    assert (drawn == 1).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert (draw_clock(20_000, ClockConfig(), generator=generator()) == 1).sum() == 0


def test_rules_say_what_a_clock_is() -> None:
    rules = {"a": "clean", "b": "noise", "c": "draw", "d": "shared", "e": "shared", "f": "dropped"}
    configs = dict.fromkeys(rules, ClockConfig())
    drawn = draw_clocks(rules, configs, 16, generator=generator())
    assert set(drawn) == set("abcde")
    assert (drawn["a"] == 0).all()
    assert (drawn["b"] == 1).all()
    assert torch.equal(drawn["d"], drawn["e"])
    assert not torch.equal(drawn["c"], drawn["d"])


def test_streams_that_share_a_clock_keep_their_own_shifts() -> None:
    configs = {"future": ClockConfig(shift=5.0), "action": ClockConfig()}
    drawn = draw_clocks(dict.fromkeys(configs, "shared"), configs, 16, generator=generator())
    torch.testing.assert_close(drawn["future"], shift_clock(drawn["action"], 5.0))


@settings(max_examples=40)
@given(
    st.sampled_from(RULES),
    st.sampled_from(RULES),
    st.sampled_from([ClockConfig(), ClockConfig(distribution="beta"), ClockConfig(full_noise=0.5)]),
)
def test_one_streams_rule_never_moves_anothers_draw(before: str, after: str, config: ClockConfig) -> None:
    configs = {"action": config, "future": ClockConfig(), "value": ClockConfig(distribution="logit_normal")}
    others = {"future": "draw", "value": "draw"}
    one, two = (draw_clocks({**others, "action": r}, configs, 8, generator=generator(3)) for r in (before, after))
    assert all(torch.equal(one[s], two[s]) for s in others)


@given(st.integers(1, 30), shifts)
def test_sampling_clocks_fall_from_noise_to_clean(steps: int, shift: float) -> None:
    laid = sampling_clocks(steps, shift=shift)
    assert laid.shape == (steps + 1,)
    assert (laid[0], laid[-1]) == (pytest.approx(1), 0)
    assert (laid.diff() < 0).all()


@given(st.integers(1, 30), shifts, st.floats(0, 1))
def test_decoupled_clocks_fall_from_noise_to_where_they_are_to_stop(steps: int, shift: float, stop: float) -> None:
    laid = decoupled_clocks(steps, shift=shift, stop=stop)
    assert laid.shape == (steps + 1,)
    assert (laid[0], laid[-1]) == (pytest.approx(1), pytest.approx(stop, abs=1e-5))
    assert (laid.diff() <= 1e-6).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sampling_clocks(0), "at least one sampling step"),
        (lambda: decoupled_clocks(2, stop=1.5), "from 0 to 1"),
        (lambda: ClockConfig(distribution="cosine"), "uniform, logit_normal, beta"),
        (lambda: draw_clocks({"a": "later"}, {"a": ClockConfig()}, 2, generator=generator()), "clean, noise, draw"),
    ],
)
def test_an_unknown_clock_says_what_there_is(call: object, words: str) -> None:
    with pytest.raises(WamError, match=words):
        call()  # type: ignore[operator]
