"""Tiny trained runs of a moving square, one of them with voxels, and a toy simulator that its episodes can be returned to."""

from __future__ import annotations

from pathlib import Path

import pytest

import wam
from tests.training.conftest import toy_config, voxel_config, write_toy, write_voxels
from wam.explore.explorer import Explorer
from wam.training.trainer import train


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explore")
    write_toy(root / "data")
    train(toy_config(root / "data", root / "run", steps=2))
    return root / "run"


@pytest.fixture(scope="session")
def voxel_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explore-voxels")
    data = write_voxels(write_toy(root / "data"))
    train(voxel_config(data, root / "run", steps=2))
    return root / "run"


@pytest.fixture(scope="session")
def painted_model(tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    root = tmp_path_factory.mktemp("explore-colours")
    config = voxel_config(write_voxels(write_toy(root / "data"), colour=True), root / "run", steps=1)
    config.model.occupancy.colour_weight = 1.0
    train(config)
    return wam.load(root / "run")


@pytest.fixture(scope="session")
def model(run: Path) -> Explorer:
    return wam.load(run)


@pytest.fixture(scope="session")
def voxel_model(voxel_run: Path) -> Explorer:
    return wam.load(voxel_run)
