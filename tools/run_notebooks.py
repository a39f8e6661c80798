"""Run the notebooks: each notebooks/NAME.py (percent format) becomes an executed NAME.ipynb beside it.

    make notebooks                                                        # all, from clean, on the models beside them
    .venv/bin/python tools/run_notebooks.py [notebooks/NAME.py ...] [--set run=runs/other] [--output FOLDER]

--set replaces values of the cell tagged `parameters`, as papermill does: a cell with them follows it. A cell that fails
stops with its sentence and status 2, and leaves the .ipynb that was there. Pictures of cells tagged `third-party`, which show
other people's recordings, stay out of that .ipynb, and the others are made lighter; the one in --whole has them as they were.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from PIL import Image

from wam.evaluation.summary import write_summary
from wam.files import write_bytes
from wam.progress import duration

EMBEDDED = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def run_notebook(source: Path, *, folder: Path, parameters: Mapping[str, object], timeout: int = 1800) -> Any:
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


def lighter(notebook: Any) -> Any:
    """A copy whose pictures take less room: what a cell's HTML shows is not kept as a PNG beside it, and is WebP inside it;
    plots have a palette."""
    copy = deepcopy(notebook)
    for data in (output["data"] for cell in copy.cells for output in cell.get("outputs", ()) if "data" in output):
        if "text/html" in data:
            if EMBEDDED.search(data["text/html"]):
                data.pop("image/png", None)
            data["text/html"] = EMBEDDED.sub(_webp, data["text/html"])
        elif "image/png" in data:
            file = io.BytesIO()
            _opened(data["image/png"]).quantize(128, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
            data["image/png"] = base64.b64encode(file.getvalue()).decode()
    return copy


def _webp(found: re.Match[str]) -> str:
    file = io.BytesIO()
    _opened(found[1]).save(file, format="webp", quality=82, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, help="default: all of notebooks/")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the parameters cell")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where to run; default: here")
    parser.add_argument("--output", type=Path, help="folder of the .ipynb files; default: beside the sources")
    parser.add_argument("--whole", type=Path, default=Path("runs/notebooks"), help="folder for them with all pictures")
    parser.add_argument("--json", type=Path, help="write the minutes they took to this file")
    options = parser.parse_args(arguments)
    parameters = {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in options.set)}
    seconds: dict[str, float] = {}
    for source in options.sources or sorted(NOTEBOOKS.glob("*.py")):
        began = time.monotonic()
        target = (options.output or source.parent) / f"{source.stem}.ipynb"
        try:
            notebook = run_notebook(source, folder=options.folder, parameters=parameters)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            said = getattr(error, "evalue", str(error).partition("\n")[0])
            sys.stderr.write(f"{source.name}: {said}\n")
            return 2
        seconds[source.stem] = time.monotonic() - began
        write_bytes(options.whole / target.name, nbformat.writes(notebook).encode())
        write_bytes(target, nbformat.writes(lighter(without_third_party(notebook))).encode())
        sys.stdout.write(f"{target}  {duration(seconds[source.stem])}\n")
    if options.json:
        minutes = {"minutes": sum(seconds.values()) / 60}
        write_summary(options.json, minutes, n=len(seconds), seeds=[0], extra={"seconds": seconds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
