"""Notebooks run on any run, say what to do where there is none, and stand executed and light beside their sources."""

from __future__ import annotations

import ast
import base64
import importlib
import io
import re
import runpy
from pathlib import Path

import jupytext
import matplotlib as mpl
import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.evaluation.test_latent_action_evaluation import write_video
from tests.tools import tool
from tests.training.conftest import toy_config, voxel_config, write_toy, write_voxels
from wam.contracts import WamError
from wam.training.trainer import train

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
LIGHT = 1_500_000
"""Bytes of an executed notebook: what a page may weigh that people open to look at."""
TRAINING = {"04_distill_and_deploy", "05_train_your_own", "06_new_method_in_yaml"}
each_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
each_that_runs = pytest.mark.parametrize(
    "source",
    [pytest.param(path, marks=pytest.mark.slow) if path.stem in TRAINING else path for path in SOURCES],
    ids=lambda path: path.stem,
)


def trained_run() -> dict[str, object]:
    """A tiny trained run of a moving square, away from where the source expects one."""
    write_toy(Path("runs/toy/data"))
    train(toy_config(Path("runs/toy/data"), Path("runs/toy"), steps=2))
    return {"run": "runs/toy", "data": "runs/toy/data"}


def run_with_voxels() -> dict[str, object]:
    """The same, of a model with voxels."""
    data = write_voxels(write_toy(Path("runs/toy/data")))
    train(voxel_config(data, Path("runs/toy"), steps=2))
    return {"run": "runs/toy", "data": "runs/toy/data"}


def episodes_and_clips() -> dict[str, object]:
    """Moving squares: as episodes of a simulator, and as clips of a person beside those of a robot."""
    write_toy(Path("episodes"), episodes=24, length=40, cameras=("side", "top"), spatial=True)
    for name in ("human_video/phantom__sweep_02.mp4", "robot/phantom_pairs/phantom__sweep_02_robot.mp4"):
        write_video(Path("clips") / name, moving_square())
    return {"episodes": "episodes", "clips": "clips", "path": str(ROOT / "tokenizers" / "latent_action")}


def videos_and_a_robot() -> dict[str, object]:
    """A folder of videos of a moving square, and a robot's dataset of another; the trainings of two steps read configs."""
    Path("configs").symlink_to(ROOT / "configs")
    for number in range(4):
        write_video(Path("videos") / f"{number}.mp4", np.roll(moving_square().repeat(2, 1).repeat(2, 2), 9 * number, 1))
    write_toy(Path("episodes"), episodes=12, length=30, cameras=("side", "top"))
    return {"videos": "videos", "robot": "episodes", "steps": 2, "scratch": "runs/own"}


def few_to_train_on() -> dict[str, object]:
    """Moving squares, seen by the cameras that configs name."""
    Path("configs").symlink_to(ROOT / "configs")
    write_toy(Path("episodes"), episodes=12, length=30, cameras=("side", "top"))
    return {"data": "episodes", "steps": 2, "windows": 8, "scratch": "runs/method"}


def shipped_teacher() -> dict[str, object]:
    """The model beside the notebooks, whose students learn for two steps."""
    Path("configs").symlink_to(ROOT / "configs")
    return {"teacher": str(ROOT / "notebooks" / "model"), "steps": 2, "starts": 1, "scratch": "runs/students"}


def moving_square() -> np.ndarray:
    frames = np.zeros((40, 64, 64, 3), np.uint8)
    for step, frame in enumerate(frames):
        frame[20:40, step : step + 20] = (200, 150, 120)
    return frames


MADE = {
    "01_imagine_futures": trained_run,
    "02_latent_actions": episodes_and_clips,
    "03_occupancy": run_with_voxels,
    "04_distill_and_deploy": shipped_teacher,
    "05_train_your_own": videos_and_a_robot,
    "06_new_method_in_yaml": few_to_train_on,
}


@each_that_runs
def test_it_runs_on_anything(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = tool("run_notebooks").run_notebook(source, folder=tmp_path, parameters=MADE[source.stem]())
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    pictures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3


@pytest.mark.parametrize("stem", ["01_imagine_futures", "02_latent_actions", "03_occupancy"])
def test_without_what_it_looks_at_it_says_what_to_do(
    stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    with pytest.raises(WamError, match=r"checkpoint.*name a checkpoint folder"):
        runpy.run_path(str(ROOT / "notebooks" / f"{stem}.py"))


@pytest.mark.slow
def test_without_clips_of_people_the_robot_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = {**episodes_and_clips(), "clips": "nowhere"}
    done = tool("run_notebooks").run_notebook(
        ROOT / "notebooks" / "02_latent_actions.py", folder=tmp_path, parameters=told
    )
    said = "".join(out.get("text", "") for cell in done.cells for out in cell.get("outputs", ()))
    assert "the robot's episodes stand in" in said
    assert "nothing to carry over" in said


@each_notebook
def test_its_source_parses_and_imports_what_there_is(source: Path) -> None:
    notebook = jupytext.read(source)
    assert notebook.cells[0].source.startswith("# "), "a notebook begins with its title"
    assert sum("parameters" in cell.metadata.get("tags", ()) for cell in notebook.cells) == 1
    for cell in notebook.cells:
        for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wam"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


@each_notebook
def test_files_that_it_names_are_there(source: Path) -> None:
    text = source.read_text()
    missing = [name for name in re.findall(r"configs/[\w/.-]+\.yaml", text) if not (ROOT / name).is_file()]
    missing += [name for name in re.findall(r"\]\(([\w/.-]+)\)", text) if not (source.parent / name).exists()]
    assert missing == []


@each_notebook
def test_the_executed_notebook_is_light(source: Path) -> None:
    assert source.with_suffix(".ipynb").stat().st_size < LIGHT, "show less, or smaller pictures"


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


def test_pictures_are_made_lighter_and_none_is_kept_twice() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format="png")
    png = base64.b64encode(file.getvalue()).decode()
    shown = {"image/png": png, "text/html": f"<p>it</p><img src='data:image/png;base64,{png}'>"}
    cells = [
        nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", data=data)])
        for data in (shown, {"image/png": png})
    ]
    light = tool("run_notebooks").lighter(nbformat.v4.new_notebook(cells=cells))
    both, plot = (cell.outputs[0].data for cell in light.cells)
    assert list(both) == ["text/html"]
    assert both["text/html"].startswith("<p>it</p><img src='data:image/webp;base64,")
    assert len(both["text/html"]) < len(png)
    assert Image.open(io.BytesIO(base64.b64decode(plot["image/png"]))).size == (256, 256)
    assert len(plot["image/png"]) < len(png)
    assert cells[0].outputs[0].data["image/png"] == png
