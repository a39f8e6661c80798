"""On a local Ray the same stages give the same dataset."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.curation.raw import SMALL, here, scene, write
from tests.data.curation.test_curate import content
from wam.data.curation.pipeline import curate

TOOL = Path(__file__).parents[3] / "tools" / "curate_cluster.py"
SETTINGS = ("size=[64,64]", "min_seconds=0.5", "max_seconds=2", "min_side=32")


@pytest.mark.slow
def test_the_output_on_ray_equals_the_local_one_and_it_goes_on(tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed; pip install 'wam[ray]'")
    for number in range(3):
        write(tmp_path / "videos" / f"{number}.mp4", scene(60, seed=number))
    (tmp_path / "videos/torn.mp4").write_bytes(b"nothing good")
    curate([tmp_path / "videos"], tmp_path / "local", replace(SMALL, processes=1), executor=here)
    command = [sys.executable, str(TOOL), str(tmp_path / "videos"), *SETTINGS, "--output", str(tmp_path / "ray")]
    for fresh in ("6 clips new", "0 clips new"):
        done = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert fresh in done.stdout
    assert content(tmp_path / "ray") == content(tmp_path / "local")
