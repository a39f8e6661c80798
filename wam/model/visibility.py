"""The visibility table: which stream reads which, and which stream modulates which. Data, not code.

Three kinds of edges carry information from one stream to another:

    sees           attention: `future: {action: yes}` lets future tokens read action tokens. `detached` reads the keys
                   and values without sending a gradient back (knowledge insulation, pi0.5 + KI).
    modulated_by   adaLN: a summary of the stream, with its clock, enters the norms of the other. Attention alone lets
                   a world model ignore the action; this edge is what makes it answer.
    skips          the full-resolution features of one video stream enter the decoder of another.

Example, three streams where the action never reads the future:

    sees:         {observation: {observation: yes}, future: {observation: yes, future: yes},
                   action: {observation: yes, action: yes}}
    modulated_by: {future: [action]}

Information reaches `future` from `action`, and does not reach `action` from `future`: `table.reaches` computes this
through any number of layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from wam.contracts import expected

STREAMS = ("text", "observation", "state", "velocity", "future", "action", "latent_action", "occupancy", "value")
PRESETS = Path(__file__).with_name("visibility.yaml")


@dataclass(frozen=True, kw_only=True)
class VisibilityTable:
    """`sees[reader][source]` is "yes" or "detached" (an absent entry is "no"); `modulated_by[stream]` and causal list
    streams.

    causal streams are block-causal over time: a frame's tokens read their own and earlier frames.
    """

    sees: Mapping[str, Mapping[str, str]]
    modulated_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skips: Mapping[str, str] = field(default_factory=dict)
    causal: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = set(self.sees) | {s for row in self.sees.values() for s in row}
        named |= set(self.modulated_by) | {s for row in self.modulated_by.values() for s in row}
        named |= set(self.skips) | set(self.skips.values()) | set(self.causal)
        if unknown := named - set(STREAMS):
            raise expected(f"streams among {', '.join(STREAMS)}", got=sorted(unknown), do="rename them in the table")
        for reader, row in self.sees.items():
            for source, sight in row.items():
                if sight not in ("yes", "no", "detached"):
                    raise expected(
                        "yes, no or detached", got=f"{sight!r} for {reader} sees {source}", do="choose one of the three"
                    )

    def sources(self, reader: str, present: Iterable[str]) -> tuple[tuple[str, bool], ...]:
        """The key list of `reader`: (source, detached) for each present stream it sees, in the order of `present`."""
        row = self.sees.get(reader, {})
        return tuple((s, row[s] == "detached") for s in present if row.get(s, "no") != "no")

    def is_seen(self, stream: str, present: Iterable[str]) -> bool:
        """Does another of the present streams read its tokens? One that is not seen may still modulate."""
        return any(self.sees.get(s, {}).get(stream, "no") != "no" for s in present if s != stream)

    def modulators(self, stream: str, present: Iterable[str]) -> tuple[str, ...]:
        there = set(present)
        return tuple(s for s in self.modulated_by.get(stream, ()) if s in there)

    def inputs(self, stream: str) -> set[str]:
        """Streams one edge upstream of `stream`, by any kind of edge."""
        found = {s for s, sight in self.sees.get(stream, {}).items() if sight != "no"}
        found |= set(self.modulated_by.get(stream, ()))
        return found | ({self.skips[stream]} if stream in self.skips else set())

    def taught_by(self, stream: str, present: Iterable[str] = STREAMS) -> set[str]:
        """Every stream to which a loss on `stream` sends a gradient through any number of layers: as `upstream`, where a
        detached read leads no further."""
        sees = {
            r: {s: "no" if sight == "detached" else sight for s, sight in row.items()} for r, row in self.sees.items()
        }
        return replace(self, sees=sees).upstream(stream, present)

    def upstream(self, stream: str, present: Iterable[str] = STREAMS) -> set[str]:
        """Every stream from which information can reach `stream` through any number of layers, itself included."""
        there, found, frontier = set(present), {stream}, [stream]
        while frontier:
            for source in self.inputs(frontier.pop()) & there:
                if source not in found:
                    found.add(source)
                    frontier.append(source)
        return found

    def reaches(self, source: str, target: str, present: Iterable[str] = STREAMS) -> bool:
        """Can information from `source` reach `target` through any number of layers?"""
        return source in self.upstream(target, present)

    def context(self, present: Iterable[str], noisy: Iterable[str]) -> tuple[str, ...]:
        """The present streams that no noisy stream reaches: computed once per observation and cached."""
        there, wanted = tuple(present), set(noisy)
        return tuple(s for s in there if not self.upstream(s, there) & wanted)


def table_from(data: str | Mapping[str, Any]) -> VisibilityTable:
    """A table from a preset's name, or from a mapping as YAML gives it. A mapping may start from a preset by
    `extends: NAME`; rows it names replace the preset's rows."""
    if isinstance(data, str):
        if data not in _presets():
            raise expected(f"a visibility preset among {', '.join(sorted(_presets()))}", got=repr(data), do="name one")
        return table_from(_presets()[data])
    if unknown := set(data) - {"extends", "sees", "modulated_by", "skips", "causal"}:
        raise expected("table keys extends, sees, modulated_by, skips, causal", got=sorted(unknown), do="rename them")
    base = table_from(data["extends"]) if data.get("extends") else VisibilityTable(sees={})
    sees = {reader: {s: _sight(v) for s, v in row.items()} for reader, row in (data.get("sees") or {}).items()}
    modulated = {s: tuple(row) for s, row in (data.get("modulated_by") or {}).items()}
    return VisibilityTable(
        sees={**base.sees, **sees},
        modulated_by={**base.modulated_by, **modulated},
        skips={**base.skips, **(data.get("skips") or {})},
        causal=tuple(data["causal"]) if "causal" in data else base.causal,
    )


def _sight(value: Any) -> str:
    """YAML 1.1 reads bare yes and no as booleans."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


@cache
def _presets() -> dict[str, Any]:
    return yaml.safe_load(PRESETS.read_text())


def preset_names() -> tuple[str, ...]:
    return tuple(sorted(_presets()))
