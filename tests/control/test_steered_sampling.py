"""A policy trained in seconds on a pushed square: steered, the chunks that it samples obey more."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.model.conftest import make_batch, make_model
from tests.training.conftest import toy_config, write_toy
from wam.contracts import Batch
from wam.control import keypoints, value_map
from wam.control.keep_out import LinearMotion
from wam.control.keypoints import apart, on_path, tracks
from wam.control.value_map import along, away_from, towards
from wam.control.wam_policy import load_policy
from wam.control.ways import Way, displaced, lagging
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec
from wam.geometry.grid import VoxelConfig
from wam.model.steering import Cost, Steering
from wam.model.wam import Sample, WorldActionModel
from wam.training.state import newest_checkpoint
from wam.training.trainer import train

FIELD = VoxelConfig(shape=[16, 16, 1], origin=[-0.5, -0.5, -0.5], side=1.0)  # the picture's pixels
Asked = tuple[WorldActionModel, Batch]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    root = tmp_path_factory.mktemp("steered")
    train(toy_config(write_toy(root / "data"), root / "run", steps=40, batch_size=16))
    model = load_policy(newest_checkpoint(root / "run")).model
    assert isinstance(model, WorldActionModel)
    spec = WindowSpec(cameras=("a", "b"), image_size=16, future=(), chunk=model.config.chunk)
    windows = WindowDataset(EpisodeStore(root / "data"), spec)
    return model, windows.batch(range(0, len(windows), 5))


def sampled(asked: Asked, steering: Steering | None) -> Tensor:
    """(B, K, 2) within the limits of the actions, as they are carried out."""
    model, batch = asked
    found = model.policy(batch, steps=2, steering=steering).action
    assert found is not None
    return found.clamp(-1, 1)


def both_ways(asked: Asked, make: Callable[[Way, Batch], Cost]) -> tuple[Tensor, Tensor]:
    """(B,) each: what the chunks cost that are sampled plain and steered."""
    _, batch = asked
    assert batch.state is not None
    cost = make(displaced(batch.state, scale=1.0, columns=(0, 1)), batch)
    plain, steered = (sampled(asked, how) for how in (None, Steering(cost=cost, steps=40, reach=0.1)))
    return cost(Sample(action=plain)), cost(Sample(action=steered))


def test_a_value_map_draws_sampled_chunks_towards_its_goal(asked: Asked) -> None:
    plain, steered = both_ways(asked, lambda way, _: along(towards((12, 4, 0), FIELD), way, fine=1.0, end=True))
    assert steered.mean() < 0.6 * plain.mean()
    assert (steered <= plain + 1e-4).all()


def test_what_is_filled_is_given_way_to(asked: Asked) -> None:
    filled = torch.zeros(FIELD.shape, dtype=torch.bool)
    filled[6:9, 6:9] = True
    plain, steered = both_ways(asked, lambda way, _: along(away_from(filled, FIELD, radius=2.0), way))
    assert (plain > 0).float().mean() > 0.2
    assert steered.mean() < 0.7 * plain.mean()  # some are in the middle of it and cannot leave at once


def test_a_keypoint_constraint_holds_for_more_sampled_chunks(asked: Asked) -> None:
    def keep_off(way: Way, batch: Batch) -> Cost:
        """Each row's own post, two pixels beside where the square is now."""
        assert batch.state is not None
        posts = torch.nn.functional.pad(batch.state + torch.tensor([2.0, 0.0]), (0, 1))
        return on_path(apart("hand", "post", by=1.9), tracks(way, fixed={"post": posts}))

    plain, steered = both_ways(asked, keep_off)
    assert (plain > 1e-4).float().mean() > 0.2
    assert (steered > 1e-4).float().mean() < 0.5 * (plain > 1e-4).float().mean()


def test_the_examples_of_the_page_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "steering.md").read_text()
    first, second, third = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    grid, steps = VoxelConfig(), 8
    known: dict[str, Any] = {
        **vars(keypoints),
        **vars(value_map),
        "Steering": Steering,
        "lagging": lagging,
        "motion": LinearMotion(weights=0.02 * np.ones((3, steps, steps + 1))),
        "start": torch.tensor([[0.0, 0.6, 0.2]]).expand(3, 3),
        "velocity": torch.zeros(3, 3),
        "goal": (0.1, 0.7, 0.1),
        "handle": (0.1, 0.7, 0.1),
        "grid": grid,
        "filled": torch.zeros(grid.shape, dtype=torch.bool),
        "model": make_model(),
        "batch": make_batch(3),
    }
    for example in (first, second):
        known.pop("chunk", None)
        exec(compile(example, "steering.md", "exec"), known)
        assert known["chunk"].shape == (3, steps, 4)
    exec(compile(third, "steering.md", "exec"), known)
    missing = known["slow"]({"hand": torch.tensor([[[0.0, 0, 0], [0.05, 0, 0]]])})
    torch.testing.assert_close(missing, torch.tensor([[0.03, -0.02]]))
