"""Notebooks run on any run's folder, say what to do where there is none, and stand executed beside their sources."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

import jupytext
import matplotlib as mpl
import nbformat
import pytest

from tests.training.conftest import toy_config, write_toy
from wam.contracts import WamError
from wam.training.trainer import train

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
each_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def tool(name: str) -> ModuleType:
    """A program of tools/, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny trained run of a moving square, away from where the sources expect one."""
    monkeypatch.chdir(tmp_path)
    write_toy(Path("runs/toy/data"))
    train(toy_config(Path("runs/toy/data"), Path("runs/toy"), steps=2))
    return tmp_path


@each_notebook
def test_it_runs_on_any_run(source: Path, folder: Path) -> None:
    done = tool("run_notebooks").run_notebook(source, folder=folder, parameters={"run": "runs/toy"})
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
