"""Raw videos and the dataset that they give, for every test of curation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.curation.raw import SMALL, here, scene, write
from wam.data.curation.pipeline import curate


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """Five files: a long one with two scenes, a short one, a copy of it, one that stands still, and one that is torn."""
    root = tmp_path_factory.mktemp("raw") / "videos"
    write(root / "a-long.mp4", np.concatenate([scene(70, seed=1), scene(60, seed=2)]))
    write(root / "b-short.mp4", scene(40, seed=3))
    write(root / "c-copy.mp4", scene(40, seed=3), options={"crf": "26"})
    write(root / "d-still.mp4", scene(40, seed=4, moves=False))
    (root / "e-torn.mp4").write_bytes(b"nothing good")
    return root


@pytest.fixture(scope="session")
def whole(videos, tmp_path_factory) -> Path:
    """The dataset that they give, made without interruption."""
    root = tmp_path_factory.mktemp("whole") / "clips"
    curate([videos], root, SMALL, executor=here)
    return root
