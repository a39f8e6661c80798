"""Plots in one light style, drawn twice where a page has a light and a dark side."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from wam.evaluation.gates import GateResult
from wam.evaluation.intervals import Interval

SERIES = ("#2a78d6", "#e08a1e", "#2f9e6e", "#b0479b", "#7a6ff0", "#c9503c", "#3aa6b9", "#8a8f98")
GOOD, BAD = "#26a269", "#d23c3c"


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Ink for text and axes, grid for lines behind; the background stays see-through."""

    ink: str
    grid: str


LIGHT, DARK = Theme(ink="#3b4252", grid="#e3e7ee"), Theme(ink="#c4cad6", grid="#2e3543")

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Name -> (steps, values)."""


@contextmanager
def _figure(size: tuple[float, float], theme: Theme) -> Iterator[tuple[Callable[[], bytes], Any]]:
    """A figure without a display or a global state, and a function that gives its PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=theme.ink, labelsize=8, length=0)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(theme.grid)
    axes.grid(True, axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)

    def render() -> bytes:
        file = io.BytesIO()
        canvas.print_figure(file, format="png", dpi=160, facecolor="none")
        return file.getvalue()

    yield render, axes


def smooth(values: Sequence[float], *, share: float = 0.05) -> np.ndarray:
    """Running mean over a share of the curve, so that noise does not hide the trend; NaN where the input is."""
    array = np.asarray(values, float)
    width = max(1, round(len(array) * share))
    padded = np.pad(array, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def curves(
    lines: Curves, *, title: str = "", log: bool = False, theme: Theme = LIGHT, size: tuple[float, float] = (5.4, 2.6)
) -> bytes:
    """PNG of curves over training steps: the measured values faint, their running mean strong."""
    with _figure(size, theme) as (render, axes):
        for i, (name, (steps, values)) in enumerate(lines.items()):
            colour = SERIES[i % len(SERIES)]
            few = len(values) < 12
            axes.plot(steps, values, color=colour, alpha=1 if few else 0.25, linewidth=1.6 if few else 0.8,
                      marker="o" if few else None, markersize=3, label=name if few else None)  # fmt: skip
            if not few:
                axes.plot(steps, smooth(values), color=colour, linewidth=1.8, label=name)
        positive = all(v > 0 for _, (_, values) in lines.items() for v in values if math.isfinite(v))
        if log and positive:
            axes.set_yscale("log")
        axes.set_xlabel("training step", color=theme.ink, fontsize=8)
        if title:
            axes.set_title(title, color=theme.ink, fontsize=9, loc="left")
        if len(lines) > 1:
            axes.legend(fontsize=7.5, frameon=False, labelcolor=theme.ink, ncols=2)
        return render()


def success_bars(rates: Mapping[str, Interval], *, theme: Theme = LIGHT) -> bytes:
    """PNG of success rates with their intervals, one bar per task."""
    names = list(rates)[::-1]
    with _figure((5.4, 0.7 + 0.36 * len(names)), theme) as (render, axes):
        values = [rates[n].value for n in names]
        low, high = ([abs(getattr(rates[n], side) - rates[n].value) for n in names] for side in ("low", "high"))
        axes.barh(names, values, color=SERIES[0], height=0.6)
        axes.errorbar(values, range(len(names)), xerr=[low, high], fmt="none", ecolor=theme.ink, capsize=3, lw=1.2)
        axes.set_xlim(0, 1.02)
        axes.grid(True, axis="x", color=theme.grid, linewidth=0.8)
        axes.grid(False, axis="y")
        axes.set_xlabel("success (95% interval)", color=theme.ink, fontsize=8)
        return render()


def gate_bars(results: Sequence[GateResult], *, theme: Theme = LIGHT) -> bytes:
    """PNG of gates, each as a share of its target (a line at 1); green if passed, red if not."""
    ordered = list(results)[::-1]
    with _figure((5.4, 0.7 + 0.36 * len(ordered)), theme) as (render, axes):
        names = [f"{r.name}, {r.steps} steps" if r.steps else r.name for r in ordered]
        shares = [0.0 if not math.isfinite(r.value) else min(max(r.value / r.target, 0), 4) for r in ordered]
        places = range(len(ordered))
        axes.barh(places, shares, color=[GOOD if r.passed else BAD for r in ordered], height=0.6)
        for place, share, result in zip(places, shares, ordered, strict=True):
            text = f"{result.value:.2f}" if math.isfinite(result.value) else "not measurable"
            axes.text(share + 0.04, place, text, va="center", color=theme.ink, fontsize=8)
        axes.set_yticks(places, names)
        axes.axvline(1, color=theme.ink, linewidth=1.2, linestyle="--")
        axes.set_xlim(0, max([1.4, *shares]) * 1.15)
        axes.grid(True, axis="x", color=theme.grid, linewidth=0.8)
        axes.grid(False, axis="y")
        axes.set_xlabel("value / target (dashed: the target)", color=theme.ink, fontsize=8)
        return render()
