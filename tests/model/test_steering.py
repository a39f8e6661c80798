"""Steering: a cost moves the chunk only as far as it must, and one of imagined voxels reaches the action."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wam.contracts import Batch, WamError
from wam.geometry.grid import VoxelConfig
from wam.model.config import ModelConfig, OccupancyConfig
from wam.model.steering import Steering
from wam.model.synthetic import synthetic_batch
from wam.model.wam import Sample, WorldActionModel


def small() -> tuple[WorldActionModel, Batch]:
    torch.manual_seed(0)
    config = ModelConfig(width=32, depth=2, heads=2, head_dim=16, image_size=16)
    config.occupancy = OccupancyConfig(loss_weight=1.0, grid=VoxelConfig(shape=[8, 8, 4]), width=16, cell_width=8)
    for stream in config.streams.values():
        stream.grid, stream.stem_width = 4, 8
    model = WorldActionModel(config).eval()
    for parameter in model.parameters():  # heads start at zero, where nothing depends on anything
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.1)
    return model, synthetic_batch(config, 3)


def left(sample: Sample) -> Tensor:
    """The first dimension may not exceed -0.3."""
    assert sample.action is not None
    return (sample.action[..., 0] + 0.3).clamp(min=0).sum(1)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_chunk_is_kept_clear_of_a_cost(steps: int) -> None:
    model, batch = small()
    plain = model.policy(batch, steps=steps).action
    steered = model.policy(batch, steps=steps, steering=Steering(cost=left, steps=40)).action
    assert plain is not None
    assert steered is not None
    assert (plain[..., 0] > -0.3).any()
    assert (steered[..., 0] <= -0.3 + 1e-4).all()


def test_rows_without_cost_stay_as_they_are() -> None:
    model, batch = small()
    plain = model.policy(batch, steps=2).action
    assert plain is not None
    cost = Steering(cost=lambda sample: (sample.action[..., 0] - 100).clamp(min=0).sum(1))  # type: ignore[index]
    steered = model.policy(batch, steps=2, steering=cost).action
    torch.testing.assert_close(steered, plain)


def test_a_cost_of_imagined_voxels_reaches_the_action_through_the_world_model() -> None:
    model, batch = small()

    def filled(sample: Sample) -> Tensor:
        assert sample.occupancy is not None
        assert sample.future is not None
        return sample.occupancy[:, 1:].mean((1, 2, 3, 4))

    def foreseen(action: Tensor | None) -> Tensor:
        return filled(model.sample(batch.replace(action=action), given=("observation", "text", "state", "action"),
                                   want=("future", "occupancy"), steps=1))  # fmt: skip

    plain = model.policy(batch, steps=1).action
    steered = model.policy(batch, steps=1, steering=Steering(cost=filled, imagine=True, steps=6, reach=0.3)).action
    assert (foreseen(steered) < foreseen(plain)).all()


def test_costs_that_say_nothing_are_refused() -> None:
    model, batch = small()
    for cost, word in (
        (lambda sample: sample.action.sum(), "each of 3 rows"),
        (lambda sample: sample.action.sum((1, 2)) * float("nan"), "finite"),
        (lambda sample: torch.ones(3), "depends on the action"),
    ):
        with pytest.raises(WamError, match=word):
            model.policy(batch, steps=1, steering=Steering(cost=cost))
    with pytest.raises(WamError, match="wanted action"):
        model.imagine(batch, steering=Steering(cost=left))
