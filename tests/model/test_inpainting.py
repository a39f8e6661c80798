"""A chunk under way binds the next one: settled actions come out as they are, and the rest stays the model's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.model.conftest import make_batch, make_model
from wam.contracts import WamError
from wam.diffusion.samplers import integrate
from wam.model.inpainting import Inpainting, guidance_weight, inpaint

SETTLED = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0]).expand(3, 8)
KNOWN = torch.linspace(-0.9, 0.9, 8)[None, :, None].expand(3, 8, 4)


def sampled(steps: int = 4, **options: object) -> Tensor:
    model, batch = make_model(), make_batch().without("action", "action_mask", "future", "future_mask")
    inpainting = Inpainting(chunk=KNOWN, weights=SETTLED, **options) if options else None  # type: ignore[arg-type]
    action = model.policy(batch, steps=steps, inpainting=inpainting).action
    assert action is not None
    return action


@pytest.mark.parametrize("steps", [1, 4])
def test_a_prefix_comes_out_exactly(steps: int) -> None:
    found = sampled(steps, method="prefix")
    torch.testing.assert_close(found[:, :3], KNOWN[:, :3], atol=1e-5, rtol=0)
    assert (found[:, 3:] - KNOWN[:, 3:]).abs().max() > 0.1


def test_guidance_pulls_what_is_settled_and_leaves_a_free_chunk_alone() -> None:
    free = sampled()
    for jacobian in ("identity", "network"):
        pulled = sampled(jacobian=jacobian)
        assert (pulled - KNOWN)[:, :3].abs().mean() < (free - KNOWN)[:, :3].abs().mean()
    nothing = Inpainting(chunk=KNOWN, weights=0 * SETTLED, jacobian="network")
    model, batch = make_model(), make_batch().without("action", "action_mask", "future", "future_mask")
    torch.testing.assert_close(model.policy(batch, steps=4, inpainting=nothing).action, free)


def test_one_step_with_the_identity_is_a_blend() -> None:
    weights = torch.linspace(1, 0, 8).expand(3, 8)
    model, batch = make_model(), make_batch().without("action", "action_mask", "future", "future_mask")
    plain, blended = (
        model.policy(batch, steps=1, inpainting=one).action
        for one in (None, Inpainting(chunk=KNOWN, weights=weights, jacobian="identity"))
    )
    assert plain is not None
    torch.testing.assert_close(blended, plain + weights[..., None] * (KNOWN - plain))


def test_the_rest_of_the_chunk_hears_of_what_is_settled() -> None:
    """Later steps see a settled prefix; in the networks's Jacobian the very same step does."""
    assert (sampled(method="prefix") - sampled())[:, 3:].abs().max() > 1e-4
    assert (sampled(1, jacobian="network") - sampled(1))[:, 3:].abs().max() > 1e-6


def linear(coupling: Tensor, x: Tensor, clock: Tensor) -> dict[str, Tensor]:
    """A network whose clean chunk is a known linear map of the noisy one."""
    clean = torch.einsum("kl,bla->bka", coupling, x)
    return {"action": (x - clean) / clock}


def test_the_networks_jacobian_is_that_of_its_clean_chunk() -> None:
    coupling, x = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)) / 3, torch.randn(2, 8, 4)
    clock, known, weights = torch.tensor(0.6), torch.randn(2, 8, 4), torch.rand(2, 8)
    options = {"known": known, "largest_step": 0.2}
    plain = linear(coupling, x, clock)["action"]
    error = weights[..., None] * (known - torch.einsum("kl,bla->bka", coupling, x))
    strength = guidance_weight(clock, highest=5.0)
    for jacobian, pull in (("network", torch.einsum("kl,bka->bla", coupling, error)), ("identity", error)):
        inpainting = Inpainting(chunk=known, weights=weights, jacobian=jacobian)  # type: ignore[arg-type]
        found = inpaint(lambda at: linear(coupling, at, clock), x, clock, inpainting=inpainting, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(found["action"], plain - strength * pull)


def test_guidance_weighs_as_in_the_paper() -> None:
    time = torch.tensor([0.0, 0.1, 0.5, 0.9])
    spread = (1 - time) ** 2 / (time**2 + (1 - time) ** 2)
    wanted = ((1 - time) / (time * spread)).clamp(max=5.0)
    torch.testing.assert_close(guidance_weight(1 - time, highest=5.0), wanted)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_no_step_goes_past_what_is_settled(steps: int) -> None:
    """The network insists on 1, what is known is 0: the chunk stays between, however few the steps."""
    clocks = torch.linspace(1, 0, steps + 1)
    inpainting = Inpainting(chunk=torch.zeros(1, 8, 4), weights=torch.ones(1, 8))

    def velocity(signals: dict[str, Tensor], now: dict[str, Tensor]) -> dict[str, Tensor]:
        at = now["action"].clamp_min(0.02)
        return inpaint(
            lambda x: {"action": (x - 1) / at},
            signals["action"],
            now["action"],
            known=inpainting.chunk,
            inpainting=inpainting,
            largest_step=1 / steps,
        )

    found = integrate(velocity, {"action": torch.zeros(1, 8, 4)}, {"action": clocks})["action"]
    assert (found >= -1e-5).all()
    assert (found < 0.9).all()


def test_what_cannot_be_meant_is_refused() -> None:
    model, batch = make_model(), make_batch().without("action", "action_mask")
    one = Inpainting(chunk=KNOWN, weights=SETTLED)
    with pytest.raises(WamError, match="wanted action"):
        model.imagine(batch, inpainting=one)
    with pytest.raises(WamError, match="samplers by name"):
        model.policy(batch, inpainting=one, schedulers={"action": object()})
    with pytest.raises(WamError, match=r"known chunk of shape \(3, 8, 4\)"):
        model.policy(batch, inpainting=Inpainting(chunk=KNOWN[:, :4], weights=SETTLED[:, :4]))
    for changes in ({"weights": SETTLED * 2}, {"chunk": KNOWN * float("nan")}, {"method": "hope"}, {"max_weight": 0.0}):
        with pytest.raises(WamError, match="finite chunk, weights"):
            Inpainting(**{"chunk": KNOWN, "weights": SETTLED, **changes})
    with pytest.raises(WamError, match="one weight for each action"):
        Inpainting(chunk=KNOWN, weights=SETTLED[:, :4])
