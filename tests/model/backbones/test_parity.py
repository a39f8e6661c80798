"""A wrapped network is the original: the same numbers out, every weight in its place and in use."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.model.backbones.tools import EACH
from wam.model.backbones.assembly import original_names, put_together, take_apart
from wam.model.backbones.catalogue import CATALOGUE
from wam.model.backbones.load import load_backbone
from wam.model.backbones.parity import Wrapped, difference, draw_example, original_forward

each_kind = pytest.mark.parametrize("name", EACH)
TARGET = 1e-5

BILLIONS = {
    "wan2.1-t2v-1.3b": 1.419,
    "wan2.1-t2v-14b": 14.288,
    "wan2.1-i2v-14b": 16.395,
    "wan2.1-i2v-14b-720p": 16.395,
    "wan2.2-ti2v-5b": 5.000,
    "cosmos-predict2-2b": 1.956,
    "cosmos-predict2.5-2b": 2.059,
    "ltx-video": 1.923,
}
"""Parameters of the published networks."""


@each_kind
@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 8, 4), (5, 2, 2)])
@pytest.mark.parametrize("per_frame", [False, True])
def test_the_wrapped_network_gives_what_diffusers_gives(
    name: str, shape: tuple[int, int, int], per_frame: bool
) -> None:
    torch.manual_seed(0)
    backbone = load_backbone(name, "tiny")
    example = draw_example(backbone.description, size=2, shape=shape, per_frame=per_frame, seed=sum(shape))
    assert difference(backbone, example) < TARGET


@each_kind
def test_the_comparison_notices_what_it_should(name: str) -> None:
    """Another clock, other text, other latents, other weights: each moves the wrapped prediction by far more than rounding."""
    torch.manual_seed(0)
    backbone = load_backbone(name, "tiny")
    example = draw_example(backbone.description, size=2, shape=(3, 4, 6), per_frame=True)
    right = original_forward(backbone, example)
    wrapped = Wrapped(copy.deepcopy(backbone))
    for field in ("clocks", "features", "latents", "picture", "guide"):
        value = getattr(example, field)
        if value is None:
            continue
        other = copy.copy(example)
        object.__setattr__(other, field, value.flip(0))
        assert (wrapped(other) - right).abs().max() > 100 * TARGET, field
    with torch.no_grad():
        wrapped.transformer.layers("future")[1].block.attn1.to_v.weight.mul_(1.1)
    assert (wrapped(example) - right).abs().max() > 100 * TARGET


@each_kind
def test_every_weight_takes_part(name: str) -> None:
    torch.manual_seed(0)
    backbone = load_backbone(name, "tiny")
    names = [n for n, _ in backbone.network.named_parameters()]
    wrapped = Wrapped(backbone)
    example = draw_example(backbone.description, size=2, shape=(3, 4, 6), per_frame=True)
    wrapped(example).square().sum().backward()
    parameters = dict(wrapped.named_parameters())
    assert len(parameters) == len(names)
    assert [n for n, p in parameters.items() if p.grad is None or p.grad.abs().sum() == 0] == []


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_key_of_the_full_network_has_its_place(name: str) -> None:
    backbone = load_backbone(name, "meta")
    original = {key: value.shape for key, value in backbone.network.state_dict().items()}
    assert sum(p.numel() for p in backbone.network.parameters()) / 1e9 == pytest.approx(BILLIONS[name], abs=5e-4)
    ends, layers = take_apart(backbone)
    assert {key: value.shape for key, value in original_names(ends, layers).items()} == original
    assert len(layers) == backbone.description.layers


@each_kind
def test_put_together_again_it_is_diffusers_network(name: str) -> None:
    torch.manual_seed(0)
    backbone = load_backbone(name, "tiny")
    example = draw_example(backbone.description, size=1, shape=(2, 4, 4), per_frame=False)
    before = original_forward(backbone, example)
    put_together(*take_apart(backbone))
    assert torch.equal(original_forward(backbone, example), before)
