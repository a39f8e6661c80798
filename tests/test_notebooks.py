"""Notebooks run on any run's folder, say what to do where there is none, and stand executed beside their sources."""

from __future__ import annotations

import runpy
from pathlib import Path

import jupytext
import matplotlib as mpl
import nbformat
import numpy as np
import pytest

from tests.evaluation.test_latent_action_evaluation import write_video
from tests.tools import tool
from tests.training.conftest import toy_config, voxel_config, write_toy, write_voxels
from wam.contracts import WamError
from wam.training.trainer import train

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
each_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def trained_run() -> dict[str, str]:
    """A tiny trained run of a moving square, away from where the source expects one."""
    write_toy(Path("runs/toy/data"))
    train(toy_config(Path("runs/toy/data"), Path("runs/toy"), steps=2))
    return {"run": "runs/toy"}


def run_with_voxels() -> dict[str, str]:
    """The same, of a model with voxels."""
    data = write_voxels(write_toy(Path("runs/toy/data")))
    train(voxel_config(data, Path("runs/toy"), steps=2))
    return {"run": "runs/toy"}


def episodes_and_clips() -> dict[str, str]:
    """Moving squares: as episodes of a simulator, and as clips of a person beside those of a robot."""
    write_toy(Path("episodes"), episodes=24, length=40, cameras=("side", "top"), spatial=True)
    for name in ("human_video/phantom__sweep_02.mp4", "robot/phantom_pairs/phantom__sweep_02_robot.mp4"):
        write_video(Path("clips") / name, moving_square())
    return {"episodes": "episodes", "clips": "clips", "path": str(ROOT / "tokenizers" / "latent_action")}


def moving_square() -> np.ndarray:
    frames = np.zeros((40, 64, 64, 3), np.uint8)
    for step, frame in enumerate(frames):
        frame[20:40, step : step + 20] = (200, 150, 120)
    return frames


MADE = {
    "01_imagine_futures": trained_run,
    "02_latent_actions": episodes_and_clips,
    "03_occupancy": run_with_voxels,
}


@each_notebook
def test_it_runs_on_anything(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = tool("run_notebooks").run_notebook(source, folder=tmp_path, parameters=MADE[source.stem]())
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    pictures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 4


@each_notebook
def test_without_a_run_it_says_what_to_do(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    with pytest.raises(WamError, match="run `make demo`"):
        runpy.run_path(str(source))


@each_notebook
def test_the_executed_notebook_is_its_source(source: Path) -> None:
    executed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    written = jupytext.read(source)
    assert [c.source for c in executed.cells] == [c.source for c in written.cells], "run `make notebooks`"
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]


def test_pictures_of_third_parties_stay_out_of_the_kept_notebook() -> None:
    def cell(tags: list[str]) -> nbformat.NotebookNode:
        picture = nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})
        said = nbformat.v4.new_output("stream", text="gain 1.5")
        return nbformat.v4.new_code_cell("", metadata={"tags": tags}, outputs=[picture, said])

    whole = nbformat.v4.new_notebook(cells=[cell(["third-party"]), cell([])])
    kept = tool("run_notebooks").without_third_party(whole)
    assert [len(c.outputs) for c in kept.cells] == [2, 2]
    assert "AAAA" not in nbformat.writes(
        kept.__class__(cells=[kept.cells[0]], metadata={}, nbformat=4, nbformat_minor=5)
    )
    assert "gain 1.5" in [out.text for out in kept.cells[0].outputs]
    assert whole.cells[0].outputs[0].data["image/png"] == "AAAA"
