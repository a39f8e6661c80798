"""A wrapped vision-language model is the original: the same hidden states out, padding too, every weight in its place."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from wam.model.backbones.vlm.catalogue import VLMS
from wam.model.backbones.vlm.decoder import original_names, put_together, take_apart
from wam.model.backbones.vlm.load import load_vlm
from wam.model.backbones.vlm.parity import Wrapped, difference, draw_example, original_forward

EACH = ("smolvlm2-500m", "paligemma-3b")
"""One of each kind; the others of the catalogue differ in size alone."""
each_kind = pytest.mark.parametrize("name", EACH)
TARGET = 1e-5

MILLIONS = {"smolvlm2-256m": 256.485, "smolvlm2-500m": 507.482, "smolvlm2-2.2b": 2246.785, "paligemma-3b": 2923.466}
"""Parameters of the published networks."""


@each_kind
@pytest.mark.parametrize("lengths", [(5,), (0, 7, 3), (4, 4)])
@pytest.mark.parametrize(("views", "times"), [(1, 1), (2, 1), (2, 2)])
def test_the_wrapped_network_gives_what_transformers_gives(
    name: str, lengths: tuple[int, ...], views: int, times: int
) -> None:
    torch.manual_seed(0)
    backbone = load_vlm(name, "tiny")
    example = draw_example(backbone, views=views, times=times, lengths=lengths, seed=views)
    assert difference(backbone, example) < TARGET


@each_kind
def test_the_comparison_notices_what_it_should(name: str) -> None:
    """Other pictures, words, action tokens and weights: each moves a hidden state by far more than rounding."""
    torch.manual_seed(0)
    backbone = load_vlm(name, "tiny")
    example = draw_example(backbone, views=1, times=1, lengths=(4, 4))
    right = torch.stack(original_forward(backbone, example))
    wrapped = Wrapped(copy.deepcopy(backbone), views=1)
    others = {
        "images": replace(example, images=example.images.flip(0)),
        "sentences": replace(example, sentences=("what", "else")),
        "codes": replace(example, codes=example.codes + 1),
    }
    for field, other in others.items():
        prompt, _, said, _ = wrapped(other)
        assert (torch.cat([prompt, said], 1) - right).abs().max() > 100 * TARGET, field
    with torch.no_grad():
        wrapped.transformer.layers("observation")[1].block.self_attn.v_proj.weight.mul_(1.1)
    prompt, _, said, _ = wrapped(example)
    assert (torch.cat([prompt, said], 1) - right).abs().max() > 100 * TARGET


@each_kind
def test_every_weight_takes_part(name: str) -> None:
    torch.manual_seed(0)
    backbone = load_vlm(name, "tiny")
    names = [n for n, _ in backbone.network.named_parameters()]
    wrapped = Wrapped(backbone, views=1)
    example = draw_example(backbone, views=1, times=1, lengths=(4,))
    _, _, said, _ = wrapped(example)
    ends = wrapped.ends.ends
    (said.square().sum() + ends.logits(said).square().sum()).backward()
    parameters = dict(wrapped.named_parameters())
    assert len(parameters) == len(names)
    assert [n for n, p in parameters.items() if p.grad is None or p.grad.abs().sum() == 0] == []


@pytest.mark.parametrize("name", sorted(VLMS))
def test_every_key_of_the_full_network_has_its_place(name: str) -> None:
    backbone = load_vlm(name, "meta")
    original = {key: value.shape for key, value in backbone.network.state_dict().items()}
    assert sum(p.numel() for p in backbone.network.parameters()) / 1e6 == pytest.approx(MILLIONS[name], abs=5e-4)
    ends, layers = take_apart(backbone)
    assert {key: value.shape for key, value in original_names(ends, layers).items()} == original
    assert len(layers) == backbone.description.layers


@each_kind
def test_put_together_again_it_is_transformers_network(name: str) -> None:
    torch.manual_seed(0)
    backbone = load_vlm(name, "tiny")
    example = draw_example(backbone, views=1, times=1, lengths=(3,))
    before, keys = original_forward(backbone, example), set(backbone.network.state_dict())
    put_together(*take_apart(backbone))
    torch.testing.assert_close(original_forward(backbone, example), before, atol=0, rtol=0)
    assert set(backbone.network.state_dict()) == keys


@each_kind
def test_its_first_layers_alone_are_the_original_cut_there(name: str) -> None:
    torch.manual_seed(0)
    backbone = load_vlm(name, "tiny", layers=1)
    assert backbone.description.layers == 1
    assert difference(backbone, draw_example(backbone, views=1, times=1, lengths=(3, 1))) < TARGET
