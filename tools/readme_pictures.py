"""The README's pictures, from what `wam demo` or `wam eval` left in a run's folder: the report's own, with words beside.

    make readme                                             # these pictures and the table of results
    .venv/bin/python tools/readme_pictures.py [--run runs/demo] [--output docs/images] [--start 0]

Writes what-if.png (one start under different actions) and film-strip.png (imagined without actions beside what
happened), both of held-out episodes; the start is taken by its place, not by how well it went. provenance.json beside
them says what model they show and how it did in its gates.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wam.contracts import WamError, expected
from wam.evaluation.artefacts import FilmStrips, WhatIf, load_film_strips, load_gates, load_what_if
from wam.files import write_bytes, write_json
from wam.visualization.filmstrip import film_strip, what_if_picture, what_if_rows
from wam.visualization.run_files import read_provenance

SCALE = 2
GAP = 2 * SCALE
INK = (40, 40, 48)


def with_words(picture: bytes, *, cell: int, heads: Sequence[str], rows: Sequence[str], wide: Sequence[int]) -> bytes:
    """The picture on white, a word over each column and beside each row. wide: columns with a wider gap before them."""
    image = Image.open(io.BytesIO(picture))
    font = ImageFont.load_default(size=13)
    rows = [row.replace(": ", ":\n").replace(", ", ",\n") for row in rows]
    margin, top = 12 + max(round(font.getlength(line)) for row in rows for line in row.splitlines()), 22
    page = Image.new("RGB", (margin + image.width, top + image.height), "white")
    page.paste(image, (margin, top), image)
    draw = ImageDraw.Draw(page)
    left = margin
    for column, head in enumerate(heads):
        left += 2 * GAP if column in wide else 0
        draw.text((left + cell / 2, top / 2), head, INK, font, anchor="mm")
        left += cell + GAP
    for row, text in enumerate(rows):
        place = (margin - 6, top + row * (cell + GAP) + cell / 2)
        draw.multiline_text(place, text, INK, font, anchor="rm", align="right")
    written = io.BytesIO()
    page.save(written, format="PNG", optimize=True)
    return written.getvalue()


def what_if(found: WhatIf, start: int) -> bytes:
    picture = what_if_picture(
        found.present[start],
        found.imagined[start],
        found.motion,
        truth=None if found.truth is None else found.truth[start],
        extrinsics=None if found.extrinsics is None else found.extrinsics[start],
        scale=SCALE,
    )
    rows = what_if_rows(found.present.shape[1], truth=found.truth is not None, reference=found.names[0])
    heads = ["now", *(name.replace("\N{MINUS SIGN}", "-") for name in found.names)]
    return with_words(picture, cell=found.present.shape[2] * SCALE, heads=heads, rows=rows, wide=(1,))


def strip(found: FilmStrips, kind: str) -> bytes:
    """The middle window of a kind, which is the middle of the held-out episodes."""
    chosen = [i for i, name in enumerate(found.kinds) if name == kind]
    i = chosen[len(chosen) // 2]
    picture = film_strip(found.real[i], found.imagined[i], found.present[i], scale=SCALE)
    views, times = found.real.shape[1:3]
    ahead = [f"+{t}" for t in range(1, times + 1)] if found.seconds is None else [f"+{s:.2g} s" for s in found.seconds]
    return with_words(
        picture,
        cell=found.present.shape[2] * SCALE,
        heads=["now", *ahead] * views,
        rows=["real", "imagined", "difference"],
        wide=range(1 + times, views * (1 + times), 1 + times),
    )


def provenance(run: Path) -> dict[str, Any]:
    """Code, training and gates of the run's model; null where the run does not say."""
    _, made = read_provenance(run)
    gates = {f"{g.name}, {g.steps} steps" if g.steps else g.name: round(g.value, 3) for g in load_gates(run) or []}
    known = {key: (made or {}).get(key) for key in ("wam", "code", "stage", "step", "seed", "train_seconds", "random")}
    return {**known, "gates": gates}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--start", type=int, default=0, help="which of the report's starts")
    options = parser.parse_args(arguments)
    try:
        starts, strips = load_what_if(options.run), load_film_strips(options.run)
        if starts is None or strips is None:
            raise expected(f"an evaluated run at {options.run}", got="none", do="run `make demo` or `wam eval` first")
        if not 0 <= options.start < len(starts.present):
            raise expected(f"a start from 0 to {len(starts.present) - 1}", got=options.start, do="choose one of them")
        about = provenance(options.run)
        pictures = {"what-if.png": what_if(starts, options.start), "film-strip.png": strip(strips, "imagine")}
    except WamError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    write_json(options.output / "provenance.json", about)
    for name, content in pictures.items():
        write_bytes(options.output / name, content)
        sys.stdout.write(f"{options.output / name}: {np.asarray(Image.open(io.BytesIO(content))).shape[1::-1]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
