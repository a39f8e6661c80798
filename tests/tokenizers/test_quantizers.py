"""Quantisers: the codes say the latents, gradients pass, dead codes come back, and each equals a public implementation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.tokenizers.quantizers import (
    FiniteScalarQuantizer,
    Quantizer,
    QuantizerConfig,
    VectorQuantizer,
    code_health,
    make_quantizer,
)

CONFIGS = {
    "fsq": QuantizerConfig(kind="fsq", levels=(3, 4, 5)),
    "vq": QuantizerConfig(kind="vq", codes=16, dim=4),
    "rvq": QuantizerConfig(kind="rvq", codes=8, dim=4, stages=3),
    "vae": QuantizerConfig(kind="vae", dim=4),
}
DISCRETE = ["fsq", "vq", "rvq"]
each = pytest.mark.parametrize("kind", list(CONFIGS))
each_with_codes = pytest.mark.parametrize("kind", DISCRETE)


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def made(kind: str) -> Quantizer:
    torch.manual_seed(0)
    return make_quantizer(CONFIGS[kind])


@each
def test_shapes_follow_the_input(kind: str) -> None:
    quantizer = made(kind)
    found = quantizer(rows(30, quantizer.inputs).reshape(5, 6, -1), generator=torch.Generator().manual_seed(0))
    assert found.latents.shape == (5, 6, quantizer.dim)
    assert found.loss.ndim == 0
    if kind == "vae":
        assert found.codes is None
    else:
        assert found.codes is not None
        assert found.codes.shape == (5, 6, quantizer.levels)
        assert found.codes.dtype == torch.int64


@each_with_codes
def test_codes_say_the_latents(kind: str) -> None:
    quantizer = made(kind).eval()
    found = quantizer(rows(40, quantizer.inputs))
    assert torch.allclose(quantizer.latents_of(found.codes), found.latents, atol=1e-6)


@each
def test_gradients_reach_the_encoder(kind: str) -> None:
    quantizer = made(kind)
    z = rows(40, quantizer.inputs).requires_grad_()
    quantizer(z, generator=torch.Generator().manual_seed(0)).latents.square().sum().backward()
    assert z.grad is not None
    assert float(z.grad.abs().sum()) > 0


@each
def test_training_draws_come_from_the_generator_alone(kind: str) -> None:
    found = []
    for noise in (1, 2):
        quantizer = made(kind)
        torch.manual_seed(noise)
        for step in range(4):
            latents = quantizer(rows(20, quantizer.inputs, step), generator=torch.Generator().manual_seed(step)).latents
        found.append(latents)
    assert torch.equal(*found)


@each
def test_evaluation_learns_and_counts_nothing(kind: str) -> None:
    quantizer = made(kind).eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(rows(40, quantizer.inputs))
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


@given(st.lists(st.integers(2, 7), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_every_fsq_code_has_its_own_place_in_the_book(levels: list[int]) -> None:
    quantizer = FiniteScalarQuantizer(tuple(levels))
    codes = torch.tensor(list(itertools.product(*(range(level) for level in levels))))
    places = quantizer.book_indices(codes)[:, 0]
    assert sorted(places.tolist()) == list(range(math.prod(levels)))
    latents = quantizer.latents_of(codes)
    assert latents.min() == -1
    assert latents.max() == 1


def test_normalised_inputs_keep_a_tiny_signal_from_collapsing_to_one_code() -> None:
    quantizer = made("fsq")
    tiny = rows(400, 3) * 1e-3 + 7
    assert code_health(quantizer.counts(quantizer(tiny).codes)).share > 0.5


def test_a_dead_code_is_put_where_inputs_are() -> None:
    quantizer = made("vq")
    quantizer.codebooks[0, 0] = 1e3  # type: ignore[index]
    quantizer.sums[0, 0] = 1e3  # type: ignore[index]
    for step in range(120):
        quantizer(rows(64, 4, step), generator=torch.Generator().manual_seed(step))
    assert float(quantizer.codebooks[0, 0].norm()) < 10  # type: ignore[index]
    assert quantizer.health.dead == 0


def test_residual_stages_come_nearer_and_nearer() -> None:
    quantizer = made("rvq")
    for step in range(60):
        quantizer(rows(128, 4, step), generator=torch.Generator().manual_seed(step))
    quantizer.eval()
    z = quantizer.norm(rows(128, 4, 99))
    codes = quantizer(rows(128, 4, 99)).codes
    book = quantizer.codebooks
    left = [(z - sum(book[s, codes[:, s]] for s in range(stages))).square().mean() for stages in (1, 2, 3)]
    assert left[0] > left[1] > left[2]


def test_perplexity_counts_codes_as_if_evenly_used() -> None:
    health = code_health(torch.tensor([[5, 5, 5, 5, 0, 0, 0, 0]]))
    assert health.perplexity == pytest.approx(4)
    assert (health.share, health.dead) == (0.5, 4)


def test_correlated_dimensions_cost_and_independent_ones_do_not() -> None:
    quantizer = FiniteScalarQuantizer((5, 5), decorrelate=1.0)
    z = rows(4000, 2)
    same = torch.stack([z[:, 0], z[:, 0]], dim=1)
    assert float(quantizer(same).loss) == pytest.approx(1, abs=0.01)
    assert float(quantizer(z).loss) < 0.01


def test_a_large_beta_silences_continuous_latents_and_health_says_so() -> None:
    quantizer = made("vae")
    quantizer(torch.cat([rows(200, 2) * 0, rows(200, 2), rows(200, 4) * 0 - 3], dim=1))
    assert quantizer.health.dead == 2
    assert quantizer.health.share == 0.5


class TestLikeThePublicImplementation:
    """Parity with vector-quantize-pytorch, which development installs."""

    def test_finite_scalars(self) -> None:
        library = pytest.importorskip("vector_quantize_pytorch")
        theirs = library.FSQ(levels=[4, 5, 3], preserve_symmetry=True)
        ours = FiniteScalarQuantizer((4, 5, 3)).eval()  # its normalisation does nothing before training
        z = rows(500, 3)
        latents, indices = theirs(z[None])
        found = ours(z * math.sqrt(1 + ours.norm.eps))
        assert torch.allclose(latents[0], found.latents, atol=1e-5)
        assert torch.equal(indices[0].long(), ours.book_indices(found.codes)[:, 0])

    def test_vectors_and_the_average_that_moves_them(self) -> None:
        library = pytest.importorskip("vector_quantize_pytorch")
        config = QuantizerConfig(kind="vq", codes=6, dim=3, decay=0.8, restart_below=0, decorrelate=0)
        ours = VectorQuantizer(config)
        ours.norm = torch.nn.Identity()  # type: ignore[assignment]
        theirs = library.VectorQuantize(dim=3, codebook_size=6, decay=0.8, commitment_weight=0.25, eps=0.0)
        with torch.no_grad():
            theirs._codebook.embed.copy_(ours.codebooks)
            theirs._codebook.embed_avg.copy_(ours.codebooks)
            theirs._codebook.cluster_size.fill_(1)
        for step in range(5):
            z = rows(40, 3, step)
            latents, indices, loss = theirs(z[None])
            found = ours(z, generator=torch.Generator().manual_seed(0))
            assert torch.equal(indices[0], found.codes[:, 0])
            assert torch.allclose(latents[0], found.latents, atol=1e-5)
            assert loss.item() == pytest.approx(found.loss.item(), rel=1e-4)
        assert torch.allclose(theirs._codebook.embed, ours.codebooks, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"levels": (5, 1)}, "2 and more"),
        ({"kind": "vq", "codes": 1}, "codes of at least 2"),
        ({"decay": 1.0}, "between 0 and 1"),
    ],
)
def test_impossible_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(WamError, match=words):
        make_quantizer(QuantizerConfig(**changes))


def test_inputs_of_another_width_are_refused() -> None:
    with pytest.raises(WamError, match="width 3"):
        made("fsq")(torch.zeros(2, 5))


def test_continuous_latents_have_no_codes_to_read() -> None:
    with pytest.raises(WamError, match="use its latents"):
        made("vae").latents_of(torch.zeros(1, 1, 1))
