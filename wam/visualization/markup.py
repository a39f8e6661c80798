"""Small pieces of HTML. Everything that comes from a file is escaped here."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from wam.visualization.images import data_uri


def escape(text: object) -> str:
    return html.escape(str(text), quote=True)


def section(anchor: str, title: str, *parts: str, intro: str = "") -> str:
    lead = f'<p class="note">{intro}</p>' if intro else ""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{lead}{"".join(parts)}</section>'


def missing(what: str, how: str) -> str:
    """A part that was not measured, and the command that measures it."""
    return f'<div class="missing"><b>Not measured:</b> {escape(what)}. {how}</div>'


def pixels(content: bytes, alt: str) -> str:
    """A picture whose pixels stay sharp when enlarged."""
    return f'<img class="pixels" src="{data_uri(content, "png")}" alt="{escape(alt)}">'


def plot(light: bytes, dark: bytes, alt: str) -> str:
    """A plot that follows the reader's light or dark scheme."""
    return (
        f'<picture><source srcset="{data_uri(dark, "png")}" media="(prefers-color-scheme: dark)">'
        f'<img class="plot" src="{data_uri(light, "png")}" alt="{escape(alt)}"></picture>'
    )


def sheet(picture: str, *, heads: Sequence[str], rows: Sequence[str]) -> str:
    """A picture of a table of images, with names over its columns and beside its rows."""
    top = "".join(f"<span>{escape(h)}</span>" for h in heads)
    side = "".join(f"<span>{escape(r)}</span>" for r in rows)
    return f'<div class="sheet"><div class="heads">{top}</div><div class="rows">{side}</div><div>{picture}</div></div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[int] = ()) -> str:
    """Cells are HTML already; `numeric` columns stand right."""

    def mark(i: int) -> str:
        return ' class="n"' if i in numeric else ""

    top = "".join(f"<th{mark(i)}>{escape(h)}</th>" for i, h in enumerate(heads))
    body = "".join(f"<tr>{''.join(f'<td{mark(i)}>{c}</td>' for i, c in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def bar(value: float, low: float, high: float) -> str:
    """A rate in [0, 1] as a bar, its interval as a line across the end."""
    return (
        f'<div class="bar" role="img" aria-label="{value:.0%}, from {low:.0%} to {high:.0%}">'
        f'<i style="width:{value:.1%}"></i><b style="left:{low:.1%};width:{max(high - low, 0.005):.1%}"></b></div>'
    )


def definitions(pairs: Mapping[str, Any]) -> str:
    """Names and values, one pair a line."""
    lines = (f"<dt>{escape(k)}</dt><dd>{v if isinstance(v, Markup) else escape(v)}</dd>" for k, v in pairs.items())
    return f'<dl class="card">{"".join(lines)}</dl>'


class Markup(str):
    """A string that is HTML already."""
