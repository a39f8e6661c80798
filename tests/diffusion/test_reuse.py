"""Step caching: nothing changes where nothing may be reused, and straight paths cost fewer calls and end where they did."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.conftest import make_batch, make_model
from wam.contracts import WamError
from wam.diffusion.clocks import sampling_clocks
from wam.diffusion.reuse import Reusing
from wam.diffusion.samplers import Signals, integrate


def straight(signals: Signals, clocks: dict[str, torch.Tensor]) -> Signals:
    return {s: torch.ones_like(x) for s, x in signals.items()}


def turning(signals: Signals, clocks: dict[str, torch.Tensor]) -> Signals:
    """A quarter turn a unit of the clock."""
    angle = clocks["a"] * torch.pi / 2
    return {"a": torch.stack([angle.cos(), angle.sin()]).expand_as(signals["a"])}


@settings(max_examples=30)
@given(st.integers(1, 16))
def test_along_a_straight_path_most_calls_are_spared_and_the_end_is_the_same(steps: int) -> None:
    start, clocks = {"a": torch.zeros(2, 2)}, {"a": sampling_clocks(steps)}
    field = Reusing(straight, least=0.99)
    torch.testing.assert_close(integrate(field, start, clocks)["a"], integrate(straight, start, clocks)["a"])
    assert field.calls + field.reused == steps
    assert field.reused == max(0, (steps - 1) // 2)


@settings(max_examples=30)
@given(st.integers(1, 16))
def test_where_the_path_turns_every_step_asks(steps: int) -> None:
    start, clocks = {"a": torch.zeros(2, 2)}, {"a": sampling_clocks(steps)}
    field = Reusing(turning, least=1.0 - 1e-6)
    assert torch.equal(integrate(field, start, clocks)["a"], integrate(turning, start, clocks)["a"])
    assert (field.calls, field.reused) == (steps, 0)


@pytest.mark.parametrize("method", ["policy", "joint"])
def test_a_sample_that_may_reuse_nothing_is_the_sample(method: str) -> None:
    model, batch = make_model(), make_batch()
    plain, careful = getattr(model, method)(batch, steps=4), getattr(model, method)(batch, steps=4, reuse=2.0)
    assert torch.equal(plain.action, careful.action)


def test_a_sample_that_may_reuse_asks_the_network_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, asked = make_model(), make_batch(), []
    own = model.network.denoise
    monkeypatch.setattr(model.network, "denoise", lambda *a, **k: asked.append(1) or own(*a, **k))
    for reuse in (None, 1e-3):
        model.policy(batch, steps=8, reuse=reuse)
    assert len(asked) == 8 + 5


def test_a_cosine_of_nothing_is_refused() -> None:
    with pytest.raises(WamError, match="a cosine above 0"):
        make_model().policy(make_batch(), reuse=0.0)
