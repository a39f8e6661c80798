"""Figures of a summary as tables of a report: the few that matter first, the others folded away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wam.evaluation.figures import MEANINGS
from wam.evaluation.words import number
from wam.visualization.markup import escape, table


def figure_tables(summary: Mapping[str, Any], shown: Sequence[str]) -> tuple[str, str]:
    """The figures of a summary that a newcomer sees at once, and the others, folded away."""
    figures, counts = summary.get("figures") or {}, summary.get("n") or {}
    listed = {
        name: [
            f"<code>{escape(name)}</code>",
            number(value, 3),
            str(counts.get(name, "")),
            escape(MEANINGS.get(name, "")),
        ]
        for name, value in figures.items()
    }
    heads = ["figure", "value", "n", "what it says"]
    first = table(heads, [row for name, row in listed.items() if name in shown], numeric=(1, 2))
    rest = [row for name, row in listed.items() if name not in shown]
    if not rest:
        return first, ""
    return (
        first,
        f"<details><summary>{len(rest)} more figures</summary>{table(heads, rest, numeric=(1, 2))}</details>",
    )
