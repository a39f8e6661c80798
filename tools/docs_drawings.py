"""The drawings of the concepts page, from the presets and the default conditionals themselves: docs/images/*.svg.

    .venv/bin/python tools/docs_drawings.py            # write them
    .venv/bin/python tools/docs_drawings.py --check    # status 1 if they are not what the package says

They follow the reader's light or dark scheme by themselves, and name nothing of other hosts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wam.files import write_bytes
from wam.model.config import default_conditionals
from wam.model.visibility import VisibilityTable, table_from

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SHOWN = ("text", "observation", "state", "future", "action")
PRESETS = ("joint", "first-frame", "attention-only")
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.soft { fill: #5b6575 } .title { font-weight: 600 } .end { text-anchor: end } .mid { text-anchor: middle }
.box { fill: #eef2f8; stroke: #b6c0cf } .noisy { fill: #fdeedd; stroke: #d9a066 } .cell { fill: none; stroke: #b6c0cf }
.sees { fill: #2a78d6 } .modulates { fill: none; stroke: #d9822b; stroke-width: 3 } .line { stroke: #5b6575; fill: none }
.given { fill: #2a78d6 } .wanted { fill: url(#falling) } .noise { fill: #c9ced6 }
.gone { fill: none; stroke: #b6c0cf; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6eaf1 } .soft { fill: #98a3b5 } .box { fill: #222b3a; stroke: #4b5870 }
  .noisy { fill: #3a2c1c; stroke: #a8763c }
  .cell, .gone { stroke: #4b5870 } .sees, .given { fill: #6aa9f4 } .modulates { stroke: #f0a35e } .line { stroke: #98a3b5 }
  .noise { fill: #4b5563 }
}
"""


def words(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{text}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, radius: float = 4) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class="{kind}"/>'


def picture(width: int, height: int, title: str, parts: Sequence[str], definitions: str = "") -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
        f"<title>{title}</title><style>{STYLE}</style>{definitions}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def streams() -> str:
    """One layer: every stream projects, attends to what it sees, and updates; context above, noisy streams below."""
    said = {
        "text": "the sentence",
        "observation": "what cameras see",
        "state": "what the robot feels",
        "future": "frames to come",
        "action": "a chunk of actions",
    }
    parts = [words(10, 22, "context: computed once for an observation", "soft"),
             words(10, 236, "noisy: computed at every denoising step", "soft")]  # fmt: skip
    for k, name in enumerate(SHOWN[:3]):
        parts += [
            box(10 + 235 * k, 32, 215, 54, "box"),
            words(24 + 235 * k, 55, name, "title"),
            words(24 + 235 * k, 74, said[name], "soft"),
        ]
    for k, name in enumerate(SHOWN[3:]):
        x = 10 + 352 * k
        parts += [box(x, 162, 333, 54, "noisy"), words(x + 14, 185, name, "title"), words(x + 14, 204, said[name], "soft"),
                  words(x + 319, 195, "its own clock, 1 to 0", "soft end")]  # fmt: skip
    arrow = '<path d="M {0} 88 L {1} 158" class="line" marker-end="url(#tip)"/>'
    parts += [arrow.format(118 + 235 * k, 110 + 352 * j + 65 * k) for k in range(3) for j in range(2)]
    parts.append('<path d="M 345 189 L 360 189" class="line" marker-end="url(#tip)" marker-start="url(#tip)"/>')
    tip = ('<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
           'orient="auto-start-reverse"><path d="M 0 0 L 8 4 L 0 8 z" class="line"/></marker></defs>')  # fmt: skip
    return picture(716, 244, "Three context streams feed two noisy ones, which read each other", parts, tip)


def visibility() -> str:
    """Presets side by side: a row reads, a column is read."""
    parts: list[str] = []
    for k, preset in enumerate(PRESETS):
        table, left, top, side = table_from(preset), 100 + 208 * k, 104, 24
        parts.append(words(left, 20, preset, "title"))
        for column, source in enumerate(SHOWN):
            x = left + side * column + 16
            parts.append(f'<text transform="translate({x},{top - 8}) rotate(-55)" class="soft">{source}</text>')
        for row, reader in enumerate(SHOWN):
            y = top + side * row
            if k == 0:
                parts.append(words(left - 10, y + 17, reader, "end"))
            for column, source in enumerate(SHOWN):
                parts += edge(table, reader, source, left + side * column, y, side)
    y = 250
    parts += [box(100, y - 11, 12, 12, "sees", 2), words(120, y, "sees: attention reads its tokens"),
              f'<circle cx="346" cy="{y - 5}" r="7" class="modulates"/>',
              words(362, y, "is modulated by: its summary enters the norms"),
              words(10, y + 24, "A row is the stream that reads, a column the stream that is read.", "soft")]  # fmt: skip
    return picture(716, 284, "Who sees and who modulates whom under three presets", parts)


def edge(table: VisibilityTable, reader: str, source: str, x: float, y: float, side: float) -> list[str]:
    """The two kinds of edges from `source` to `reader`, as a cell."""
    parts = [box(x + 1, y + 1, side - 2, side - 2, "cell", 3)]
    if table.sees.get(reader, {}).get(source, "no") != "no":
        parts.append(box(x + 8, y + 8, side - 16, side - 16, "sees", 1))
    if source in table.modulated_by.get(reader, ()):
        parts.append(f'<circle cx="{x + side / 2:g}" cy="{y + side / 2:g}" r="8" class="modulates"/>')
    return parts


KINDS = {"clean": "given", "draw": "wanted", "shared": "wanted", "noise": "noise", "dropped": "gone"}
SAID = {
    "given": "given: clock 0",
    "wanted": "wanted: falls from 1 to 0",
    "noise": "unknown: clock 1",
    "gone": "dropped: no tokens",
}


def clocks() -> str:
    """The five conditionals as settings of two clocks."""
    parts = [words(300, 22, "future", "title mid"), words(520, 22, "action", "title mid")]
    for row, conditional in enumerate(default_conditionals()):
        y = 36 + 34 * row
        parts.append(words(180, y + 17, conditional.name, "end"))
        for x, stream in ((200, "future"), (420, "action")):
            parts.append(box(x, y, 200, 24, KINDS[conditional.clocks[stream]]))
    for k, (kind, text) in enumerate(SAID.items()):
        x, y = 110 + 270 * (k % 2), 232 + 26 * (k // 2)
        parts += [box(x, y - 12, 34, 16, kind), words(x + 44, y + 1, text, "soft")]
    falling = ('<defs><linearGradient id="falling"><stop offset="0" stop-color="#9aa3af"/>'
               '<stop offset="1" stop-color="#2a78d6"/></linearGradient></defs>')  # fmt: skip
    return picture(716, 276, "Five conditionals of one network as settings of two clocks", parts, falling)


DRAWINGS = {"streams": streams, "visibility": visibility, "clocks": clocks}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=IMAGES)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if one is not up to date")
    options = parser.parse_args(arguments)
    stale = []
    for name, draw in DRAWINGS.items():
        path, drawn = options.output / f"{name}.svg", draw()
        if options.check:
            stale += [] if path.is_file() and path.read_text() == drawn else [path.name]
        else:
            write_bytes(path, drawn.encode())
    if stale:
        sys.stdout.write(f"not what the package says: {', '.join(stale)}; run tools/docs_drawings.py\n")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
