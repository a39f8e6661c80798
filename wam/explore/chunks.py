"""Actions that a model names, beside those that were recorded: a plot that displays itself."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wam.contracts import ActionSpace, expected
from wam.files import write_bytes
from wam.visualization.images import data_uri
from wam.visualization.markup import escape
from wam.visualization.plots import SERIES

RECORDED = "recorded"


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """names: of R chunks; actions (R, K, A) in the units of `space`. recorded (K, A): what was done, or None."""

    names: tuple[str, ...]
    actions: np.ndarray
    space: ActionSpace
    title: str
    recorded: np.ndarray | None = None

    def __or__(self, other: Chunks) -> Chunks:
        """Both in one plot."""
        if other.actions.shape[1:] != self.actions.shape[1:]:
            raise expected(
                f"chunks of shape {self.actions.shape[1:]} beside them",
                got=other.actions.shape[1:],
                do="plot them apart",
            )
        return replace(self, names=(*self.names, *other.names), actions=np.concatenate([self.actions, other.actions]))

    def __getitem__(self, name: str) -> np.ndarray:
        """(K, A): the chunk of that name."""
        if name not in self.names:
            raise expected(f"a chunk among {', '.join(self.names)}", got=repr(name), do="name one of them")
        return self.actions[self.names.index(name)]

    def save(self, path: str | Path) -> Path:
        """As a PNG."""
        path = Path(path)
        if path.suffix != ".png":
            raise expected("a path that ends in .png", got=str(path), do="rename it")
        write_bytes(path, self._repr_png_())
        return path

    def _repr_png_(self) -> bytes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        dims = len(self.space.names)
        figure = Figure(figsize=(2.5 * dims, 2.3), layout="constrained")
        canvas, axes = FigureCanvasAgg(figure), figure.subplots(1, dims, sharey=True, squeeze=False)
        lines = list(zip(self.names, self.actions, strict=True))
        if self.recorded is not None:
            lines.insert(0, (RECORDED, self.recorded))
        for dim, axis in enumerate(axes[0]):
            for number, (name, chunk) in enumerate(lines):
                dashed = "--" if name == RECORDED else "-"
                axis.plot(chunk[:, dim], dashed, label=name, color=SERIES[number % len(SERIES)], marker=".", lw=1.2)
            axis.set_title(f"{self.space.names[dim]} ({self.space.units[dim]})", fontsize=9)
            axis.set_xlabel("step of the chunk", fontsize=8)
            axis.tick_params(labelsize=8)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=len(lines))
        file = io.BytesIO()
        canvas.print_figure(file, format="png", dpi=110)
        return file.getvalue()

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.title)}</p><img src='{data_uri(self._repr_png_(), 'png')}' alt='{escape(self.title)}'>"
