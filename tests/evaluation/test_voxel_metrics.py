"""Voxel metrics against what can be counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.evaluation.voxel_metrics import changed, distances, iou, mean_iou


def grid(*filled: tuple[int, int, int], size: int = 4) -> torch.Tensor:
    found = torch.zeros(1, size, size, size, dtype=torch.bool)
    for x, y, z in filled:
        found[0, x, y, z] = True
    return found


A, B, C = (0, 0, 0), (1, 0, 0), (3, 0, 0)


def test_overlap_counts_what_both_fill_over_what_either_does() -> None:
    assert iou(grid(A, B), grid(B, C)) == pytest.approx(1 / 3)
    assert iou(grid(A), grid(A)) == 1
    assert math.isnan(iou(grid(), grid()))


def test_overlap_is_summed_before_it_is_divided() -> None:
    predicted, truth = torch.cat([grid(A, B, C), grid(A)]), torch.cat([grid(A, B, C), grid(B)])
    assert iou(predicted, truth) == pytest.approx(3 / 5)


def test_what_is_not_known_does_not_count() -> None:
    assert iou(grid(A, B), grid(A), known=~grid(B)) == 1


@given(st.integers(0, 2**31 - 1), st.floats(0.05, 0.9))
def test_overlap_is_symmetric_and_no_more_than_one(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(2, 5, 5, 5, generator=generator) < share for _ in range(2))
    assert 0 <= iou(a, b) == iou(b, a) <= 1


def test_copying_the_present_overlaps_nothing_on_the_changed_voxels_and_something_around_them() -> None:
    present, truth = grid(A, B), grid(B, C)
    moved = changed(truth, present, grow=0)
    assert (moved == grid(A, C)).all()
    assert iou(present, truth, moved) == 0
    assert iou(truth, truth, moved) == 1
    around = changed(truth, present)
    assert iou(present, truth, around) == pytest.approx(1 / 3)
    assert around.sum() == 2 * 2 * 4  # y and z are at the corner, x is all covered
    assert not changed(truth, truth).any()


def test_the_mean_over_classes_leaves_out_those_that_do_not_occur() -> None:
    predicted, truth = torch.zeros(2, 1, 4, 4, 4, dtype=torch.long)
    predicted[0, 0, 0, 0], truth[0, 0, 0, 0] = 1, 1
    predicted[0, 1, 0, 0], truth[0, 2, 0, 0] = 2, 2
    assert mean_iou(predicted, truth, classes=5) == pytest.approx(0.5)


def test_distances_are_metres_between_centres() -> None:
    found = distances(grid(A), grid(C), side=0.02)
    assert found.chamfer == pytest.approx(0.06)
    assert found.f_scores == {0.01: 0, 0.02: 0, 0.05: 0}
    near = distances(grid(A, C), grid(B, C), side=0.02)
    assert near.chamfer == pytest.approx(0.01)
    assert near.f_scores[0.01] == pytest.approx(0.5)
    assert near.f_scores[0.02] == pytest.approx(1)


def test_empty_grids_are_left_out_of_distances() -> None:
    found = distances(torch.cat([grid(), grid(A)]), torch.cat([grid(A), grid(A)]), side=0.1)
    assert found.count == 1
    assert found.chamfer == 0
    assert math.isnan(distances(grid(), grid(A), side=0.1).chamfer)


def test_grids_of_different_shapes_are_refused() -> None:
    with pytest.raises(WamError, match="one shape"):
        iou(grid(A), grid(A, size=5))
