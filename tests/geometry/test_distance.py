"""Distances to what is filled, against a search of every pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wam.contracts import WamError
from wam.geometry.distance import truncated_distance
from wam.geometry.grid import OCCUPIED, UNKNOWN


def searched(marked: Tensor, reach: float) -> Tensor:
    """(X, Y, Z) bool -> in voxels, by looking at every pair."""
    places = torch.stack(torch.meshgrid(*(torch.arange(n) for n in marked.shape), indexing="ij"), -1).reshape(-1, 3)
    near = places[marked.flatten()].float()
    if not len(near):
        return torch.full(marked.shape, reach)
    return (
        torch.cdist(places.float(), near, compute_mode="donot_use_mm_for_euclid_dist")
        .amin(1)
        .clamp_max(reach)
        .reshape(marked.shape)
    )


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.floats(0.005, 0.3),
    st.sampled_from([0.0, 0.02, 0.2]),
    st.sampled_from([0.7, 1.0, 1.5, 2.0, 3.1, 6.0]),
)
def test_it_is_that_of_a_search_and_sure_where_nothing_unknown_is_nearer(
    seed: int, share: float, unknown: float, reach: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    luck = torch.rand(2, 7, 5, 6, generator=generator)
    grid = ((luck < share) * OCCUPIED + (luck > 1 - unknown) * UNKNOWN).to(torch.uint8)
    found, sure = truncated_distance(grid, reach=reach)
    for one, distance, known in zip(grid, found, sure, strict=True):
        filled, hidden = (searched(one == state, reach) for state in (OCCUPIED, UNKNOWN))
        torch.testing.assert_close(distance * reach, filled)
        assert (known == ((one != UNKNOWN) & (hidden >= filled - 1e-5))).all()


def test_nothing_filled_is_as_far_as_can_be() -> None:
    found, sure = truncated_distance(torch.zeros(3, 3, 3, dtype=torch.uint8), reach=2.5)
    assert (found == 1).all()
    assert sure.all()


def test_a_reach_of_nothing_is_refused() -> None:
    with pytest.raises(WamError, match="above 0"):
        truncated_distance(torch.zeros(3, 3, 3, dtype=torch.uint8), reach=0)
