"""Run the notebooks: each notebooks/NAME.py (percent format) becomes an executed NAME.ipynb beside it.

    make notebooks                                                        # all, on runs/demo
    .venv/bin/python tools/run_notebooks.py [notebooks/NAME.py ...] [--set run=runs/other] [--output FOLDER]

--set replaces values of the cell tagged `parameters`, as papermill does: a cell with them follows it. A cell that fails
stops with its sentence and status 2, and leaves the .ipynb that was there. Pictures of cells tagged `third-party`, which show
other people's recordings, stay out of that .ipynb; the one in --whole has them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from wam.files import write_bytes

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def run_notebook(source: Path, *, folder: Path, parameters: Mapping[str, str], timeout: int = 600) -> Any:
    """The executed notebook of a percent-format source, run in `folder`. Raises CellExecutionError."""
    notebook = jupytext.read(source)
    if parameters:
        places = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
        if len(places) != 1:
            raise SystemExit(f"expected one cell tagged parameters in {source}, got {len(places)}; tag the one")
        lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        given = nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]})
        notebook.cells.insert(places[0] + 1, given)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    for number, cell in enumerate(notebook.cells):  # nothing that changes from run to run by itself
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        if "outputs" in cell:  # warnings name paths of the machine
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return notebook


def without_third_party(notebook: Any) -> Any:
    """A copy in which cells tagged `third-party` keep what they print and lose their pictures."""
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if "third-party" not in cell.metadata.get("tags", ()):
            continue
        kept = [out for out in cell.outputs if not any(kind.startswith("image/") for kind in out.get("data", {}))]
        if len(kept) < len(cell.outputs):
            note = "(The picture shows third-party recordings, which are not kept here: run the notebook to see it.)\n"
            kept.insert(0, nbformat.v4.new_output("stream", name="stdout", text=note))
        cell.outputs = kept
    return copy


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, help="default: all of notebooks/")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the parameters cell")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where to run; default: here")
    parser.add_argument("--output", type=Path, help="folder of the .ipynb files; default: beside the sources")
    parser.add_argument("--whole", type=Path, default=Path("runs/notebooks"), help="folder for them with all pictures")
    options = parser.parse_args(arguments)
    parameters = dict(text.split("=", 1) for text in options.set)
    for source in options.sources or sorted(NOTEBOOKS.glob("*.py")):
        target = (options.output or source.parent) / f"{source.stem}.ipynb"
        try:
            notebook = run_notebook(source, folder=options.folder, parameters=parameters)
        except CellExecutionError as error:
            sys.stderr.write(f"{source.name}: {error.evalue}\n")
            return 2
        write_bytes(options.whole / target.name, nbformat.writes(notebook).encode())
        write_bytes(target, nbformat.writes(without_third_party(notebook)).encode())
        sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
