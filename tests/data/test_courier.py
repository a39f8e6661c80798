"""A courier changes where batches are, not what they are, nor where a loader stands."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from tests.data.toy_episodes import write_toy
from wam.data.courier import Courier
from wam.data.loader import BatchLoader
from wam.data.mixture import Mixture
from wam.data.sampler import ResumableSampler
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_and_positions_are_the_same_with_one(workers: int, tmp_path: Path) -> None:
    dataset = WindowDataset(EpisodeStore(write_toy(tmp_path / "toy")), WindowSpec(image_size=16))
    mixture, found = Mixture([(dataset, 1.0, "toy")]), []
    for courier in (None, Courier("cpu")):
        sampler = ResumableSampler(mixture)
        loader = BatchLoader(mixture, sampler, batch_size=4, workers=workers, courier=courier)
        batches = iter(loader)
        found.append(([batch.tensors() for batch in itertools.islice(batches, 3)], sampler.position))
        batches.close()  # type: ignore[attr-defined]
    assert found[0][1] == found[1][1] == 12, "what was made ahead is not counted"
    for plain, carried in zip(found[0][0], found[1][0], strict=True):
        assert plain.keys() == carried.keys()
        assert all(torch.equal(plain[name], carried[name]) for name in plain)
