"""Value maps: read between voxels, composed, and obeyed by a chunk whose way they are laid along."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wam.contracts import WamError
from wam.control.value_map import ValueMap, along, away_from, towards
from wam.control.ways import Way, displaced, placed
from wam.geometry.grid import VoxelConfig
from wam.model.steering import Steering, descend, summed
from wam.model.wam import Sample

GRID = VoxelConfig(shape=[9, 7, 5], origin=[-0.4, 0.1, 0.0], side=0.1)
CENTRES = torch.from_numpy(GRID.centres()).float()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=4, max_size=4), st.integers(0, 2**31 - 1))
def test_between_centres_a_linear_map_is_read_as_it_is_and_beyond_them_as_at_the_edge(
    slope: list[float], seed: int
) -> None:
    a = torch.tensor(slope)
    field = ValueMap((CENTRES @ a[:3] + a[3]).reshape(GRID.shape), GRID)
    low, high = CENTRES.amin(0), CENTRES.amax(0)
    luck = torch.rand(4, 6, 3, generator=torch.Generator().manual_seed(seed))
    points = low + luck * (high - low)
    torch.testing.assert_close(field.at(points), points @ a[:3] + a[3], atol=1e-4, rtol=0)
    torch.testing.assert_close(field.at(CENTRES), field.values.flatten(), atol=1e-4, rtol=0)
    outside = low + (3 * luck - 1) * (high - low)
    torch.testing.assert_close(field.at(outside), field.at(outside.clamp(low, high)), atol=1e-4, rtol=0)


def test_its_gradient_is_the_slope() -> None:
    field = ValueMap((CENTRES @ torch.tensor([2.0, -1.0, 0.5])).reshape(GRID.shape), GRID)
    points = torch.tensor([[0.03, 0.42, 0.21]], requires_grad=True)
    field.at(points).sum().backward()
    torch.testing.assert_close(points.grad, torch.tensor([[2.0, -1.0, 0.5]]))


def test_maps_add_weigh_and_belong_to_one_grid() -> None:
    goal, other = towards((0.0, 0.4, 0.2), GRID), towards((0.2, 0.4, 0.2), GRID)
    torch.testing.assert_close((goal + 2 * other).values, goal.values + other.values * 2)
    with pytest.raises(WamError, match="one grid"):
        goal + towards((0.0, 0.4, 0.2), VoxelConfig(shape=[9, 7, 5], origin=[0, 0, 0], side=0.1))
    with pytest.raises(WamError, match="one for each voxel"):
        ValueMap(torch.zeros(3, 3, 3), GRID)
    with pytest.raises(WamError, match="finite: False"):
        ValueMap(torch.full(GRID.shape, float("nan")), GRID)
    with pytest.raises(WamError, match="filled"):
        away_from(torch.rand(GRID.shape), GRID, radius=0.1)


def test_what_is_filled_is_dear_dearer_inside_and_free_out_of_reach() -> None:
    filled = torch.zeros(GRID.shape, dtype=torch.bool)
    filled[3:6, 2:5, :3] = True
    values = away_from(filled, GRID, radius=0.2).values
    assert values[4, 3, 0] > values[3, 3, 0] > values[2, 3, 0] > 0  # the middle, the side, beside it
    assert values[2, 3, 0].item() == pytest.approx(0.1)
    assert (values[0] == 0).all()


STEPS = 8


def across(height: float = 0.05) -> tuple[Tensor, Way]:
    """A chunk that moves 10 cm a step along x through the grid."""
    chunk = torch.zeros(1, STEPS, 4)
    chunk[..., 0] = 1
    return chunk, displaced(torch.tensor([[-0.35, 0.44, height]]), scale=0.1)


def steered(chunk: Tensor, steering: Steering) -> Tensor:
    return descend(chunk, lambda action: Sample(action=action), steering)


def touched(filled: Tensor, points: Tensor) -> Tensor:
    """Which points (N, 3) of a way, and 20 between each two, lie in what is filled."""
    share = torch.linspace(0, 1, 21)[:, None, None]
    dense = (points[:-1] + share * (points[1:] - points[:-1])).reshape(-1, 3)
    cell = ((dense - torch.tensor(GRID.origin)) / GRID.side).floor().long()
    inside = ((cell >= 0) & (cell < torch.tensor(GRID.shape))).all(-1)
    x, y, z = cell[inside].unbind(-1)
    return filled[x, y, z]


def test_a_chunk_goes_around_what_is_filled_and_still_gets_where_it_should() -> None:
    filled = torch.zeros(GRID.shape, dtype=torch.bool)
    filled[4, 3, :2] = True  # a post, a hand's breadth beside the middle of the way
    chunk, way = across()
    keep_off = along(away_from(filled, GRID, radius=0.2), way)
    arrive = along(towards((0.45, 0.45, 0.05), GRID), way, fine=0.12, end=True)
    found = steered(chunk, Steering(cost=summed(keep_off, arrive), steps=200, reach=0.1))
    assert touched(filled, way(chunk)[0]).any()
    assert not touched(filled, way(found)[0]).any()
    assert keep_off(Sample(action=found)) < 0.3 * keep_off(Sample(action=chunk))
    assert torch.linalg.vector_norm(way(found)[0, -1] - torch.tensor([0.45, 0.45, 0.05])) < 0.25


def test_a_way_that_is_cheap_enough_stays_as_it_is() -> None:
    chunk, way = across()
    cost = along(towards((0.0, 0.4, 0.05), GRID), way, fine=1.0)
    assert torch.equal(steered(chunk, Steering(cost=cost)), chunk)
    assert along(towards((0.0, 0.4, 0.05), GRID), way, fine=0.1, end=True)(Sample(action=chunk)) > 0


def test_ways_follow_displacements_and_places_in_two_or_three_dimensions() -> None:
    chunk = torch.tensor([[[1.0, 2.0, 3.0], [1.0, 0.0, -1.0]]])
    along_all = displaced(torch.tensor([[1.0, 1.0, 1.0]]), scale=0.5)(chunk)
    torch.testing.assert_close(along_all, torch.tensor([[[1.5, 2, 2.5], [2, 2, 2]]]))
    flat = displaced(torch.zeros(1, 2), scale=1.0, columns=(0, 1))(chunk)
    torch.testing.assert_close(flat, torch.tensor([[[1.0, 2, 0], [2, 2, 0]]]))
    torch.testing.assert_close(placed(scale=2.0, columns=(2, 0))(chunk), torch.tensor([[[6.0, 2, 0], [-2, 2, 0]]]))
    with pytest.raises(WamError, match="name those that move the hand"):
        placed(columns=(0, 1, 3))(chunk)
    with pytest.raises(WamError, match="2 or 3 numbers"):
        placed(columns=(0,))(chunk)


def test_a_sample_without_an_action_has_no_way() -> None:
    with pytest.raises(WamError, match="want the action"):
        along(towards((0, 0, 0), GRID), placed())(Sample())
