"""The report's part about voxels: true grids above predicted ones, which can be turned without a script."""

from __future__ import annotations

import io

from PIL import Image

from wam.visualization.figure_tables import figure_tables
from wam.visualization.images import data_uri
from wam.visualization.markup import escape, pixels, section
from wam.visualization.run_files import ANGLES, TURNED, RunFiles

FIRST = (
    "iou_present",
    "iou_present_usual",
    "iou_present_lifted",
    "iou_future",
    "iou_changed",
    "iou_changed_copied",
    "future_gain",
    "colour_error_present",
    "colour_error_present_mean",
    "colour_error_changed",
    "colour_error_changed_copied",
)
"""The figures that a newcomer sees at once; the others are folded away."""


def voxels(run: RunFiles) -> str:
    """Nothing where none were measured."""
    if run.voxels is None:
        return ""
    shown = run.voxels.pictures
    cards = []
    for name, (title, png) in shown.items():
        if name.endswith(TURNED):
            continue
        around = shown.get(name + TURNED)
        turning = turntable(name, around[1], title) if around else ""
        cards.append(
            f'<figure class="card"><figcaption>{escape(title)}</figcaption><div class="scroll">{pixels(png, title)}</div>'
            f"{turning}</figure>"
        )
    first, rest = figure_tables(run.voxels.summary, FIRST)
    return section(
        "voxels",
        "What is where, in three dimensions",
        first,
        f'<div class="strips wide">{"".join(cards)}</div>',
        rest,
        intro="Beside pictures, the model says which cells of a grid over the table are filled, now and in the future it "
        "imagines for the recorded actions. Choose a side with the round buttons, or with the arrow keys, to walk around.",
    )


def turntable(name: str, sprite: bytes, alt: str) -> str:
    """One picture of all sides; the checked button says which of them is seen."""
    buttons = "".join(
        f'<input type="radio" name="{escape(name)}" aria-label="side {k + 1} of {ANGLES}"{" checked" if k == 0 else ""}>'
        for k in range(ANGLES)
    )
    width, height = Image.open(io.BytesIO(sprite)).size
    style = f"aspect-ratio:{width}/{height // ANGLES};background-image:url('{data_uri(sprite, 'png')}')"
    view = f'<div class="view" role="img" aria-label="{escape(alt)}" style="{style}"></div>'
    return f'<div class="turntable">{buttons}{view}</div>'
