"""The toy dataset, written once, and the folder of real recordings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.toy_episodes import write_toy
from wam.data.store import EpisodeStore


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "dataset")


@pytest.fixture
def toy(toy_root: Path) -> EpisodeStore:
    return EpisodeStore(toy_root)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings, or a skip that says why."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("WAM_DATA", default))
    if not (root / "robot").is_dir():
        pytest.skip(f"no real recordings at {root}; set WAM_DATA to their folder")
    return root
