"""Colour errors against what can be counted by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import write_toy, write_voxels
from wam.contracts import WamError
from wam.data.labels import VoxelLabels
from wam.data.store import EpisodeStore
from wam.evaluation.figures import Measured
from wam.evaluation.voxel_colour import UsualColours, add_colours, add_kinds, changed_colours, colour_error
from wam.geometry.surface import GROUND, ROBOT


def grids(*colours: tuple[int, int, int] | None) -> torch.Tensor:
    """(1, N, 1, 1, 4): a row of voxels, None where no colour is known."""
    found = torch.zeros(1, len(colours), 1, 1, 4, dtype=torch.uint8)
    for x, colour in enumerate(colours):
        if colour is not None:
            found[0, x, 0, 0] = torch.tensor([*colour, 255])
    return found


RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def test_an_error_is_the_mean_difference_where_a_colour_is_known() -> None:
    truth = grids(RED, None, BLACK)
    said = torch.tensor([[1.0, 0, 0], [0.3, 0.3, 0.3], [0.3, 0, 0]]).reshape(1, 3, 1, 1, 3)
    assert colour_error(said, truth) == pytest.approx(0.05)
    only = torch.tensor([True, True, False]).reshape(1, 3, 1, 1)
    assert colour_error(said, truth, only) == 0
    assert math.isnan(colour_error(said, grids(None, None, None)))
    assert colour_error(torch.zeros(3), truth) == pytest.approx(1 / 6)


def test_a_colour_has_changed_where_it_is_another_or_new() -> None:
    now, then = grids(RED, RED, None, RED, None), grids(RED, BLUE, RED, None, None)
    assert changed_colours(then, now).flatten().tolist() == [False, True, True, False, False]


def test_baselines_are_the_mean_the_own_mean_and_the_presents_colour() -> None:
    truth = torch.stack([grids(RED, None), grids(BLUE, BLACK)], dim=1)  # at the present, then
    usual = UsualColours(mean=torch.tensor([0.5, 0, 0]), each=torch.tensor([[[[1.0, 0, 0]]], [[[0.0, 0, 0.3]]]]))
    found = Measured()
    add_colours(found, truth, truth[..., :3], usual)
    assert found.values["colour_error_present"] == found.values["colour_error_future"] == 0
    assert found.values["colour_error_present_mean"] == pytest.approx(0.5 / 3)
    assert found.values["colour_error_present_usual"] == 0
    assert found.values["colour_error_future_mean"] == pytest.approx((1.5 + 0.5) / 6)
    assert found.values["colour_error_future_copied"] == pytest.approx(
        (2 + 0.3) / 6
    )  # red for blue, its mean for black
    assert found.values["colour_error_changed_copied"] == pytest.approx((2 + 0.3) / 6)


def test_of_each_kind_the_share_of_its_surface_that_is_found() -> None:
    truth = torch.zeros(2, 1, 3, 1, 1, 4, dtype=torch.uint8)
    truth[:, 0, 0, 0, 0, 3], truth[:, 0, 1, 0, 0, 3] = ROBOT, GROUND
    filled = torch.zeros(2, 1, 3, 1, 1, dtype=torch.bool)
    filled[0, 0, 0] = filled[:, 0, 2] = True
    found = Measured()
    add_kinds(found, truth, filled)
    assert found.values == {"found_robot_present": 0.5, "found_ground_present": 0.0}


def test_usual_colours_are_the_means_of_the_labels(tmp_path: Path) -> None:
    store = EpisodeStore(write_voxels(write_toy(tmp_path / "toy", episodes=2), colour=True))
    labels = VoxelLabels(store.root, [store.episode(0), store.episode(1)], colour=True)
    usual = UsualColours.of(labels, batch=7)
    painted = labels.colours(np.arange(len(labels)))
    shown = painted[..., 3] > 0
    np.testing.assert_allclose(usual.mean.numpy(), painted[shown][:, :3].mean(0) / 255, atol=1e-6)
    column = int(np.argwhere(shown.any(0))[0][0])
    assert usual.each[shown.any(0)][0, 0].item() == pytest.approx(30 * column / 255)
    never = torch.from_numpy(~shown.any(0))
    assert torch.equal(usual.each[never], usual.mean.expand(int(never.sum()), 3))


def test_labels_without_any_colour_have_no_usual_ones(tmp_path: Path) -> None:
    root = write_voxels(write_toy(tmp_path / "blank", episodes=1), colour=True)
    path = root / "labels/occupancy/episode-000000.npz"
    with np.load(path, allow_pickle=False) as arrays:
        blank = {name: np.zeros_like(value) for name, value in arrays.items()}
    np.savez(path, allow_pickle=False, **blank)
    labels = VoxelLabels(root, [EpisodeStore(root).episode(0)], colour=True)
    with pytest.raises(WamError, match="have a colour"):
        UsualColours.of(labels)
