"""What a page may ask, read from JSON that anybody may have written. What does not fit is one sentence, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from wam.contracts import WamError, expected

Kind = Literal["none", "push", "recorded", "policy"]
KINDS = ("none", "push", "recorded", "policy")
WORDS, MOST_STEPS, MOST_CHUNKS, MOST_SEED = 300, 20, 8, 2**31


@dataclass(frozen=True, kw_only=True)
class Imagine:
    """number: the page's own, returned with the answer. place: of the start among the held-out frames, from 0 to 1.
    instruction: None for the start's own. kind: of actions; push: for `push`, how strong along each named dimension."""

    number: int
    place: float = 0.0
    instruction: str | None = None
    kind: Kind = "none"
    push: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    steps: int = 3
    chunks: int = 1


@dataclass(frozen=True, kw_only=True)
class Retrace:
    """A recorded failure, by its place in the list, and the plan of it that is looked at."""

    number: int
    which: int = 0
    plan: int = 0


Question = Imagine | Retrace


class QuestionError(WamError):
    """A question that cannot be read; number: its own, if that much could be."""

    def __init__(self, words: str, number: int = 0) -> None:
        super().__init__(words)
        self.number = number


def read_question(frame: str | bytes) -> Question:
    """The question of a frame. Raises QuestionError."""
    number = 0
    try:
        if not isinstance(frame, str):
            raise expected("a question as text", got="bytes", do="send JSON")
        said = _object(frame)
        number = _whole(said, "number", 0, 2**53)
        asked = said.get("ask")
        if asked == "imagine":
            return _imagine(said, number)
        if asked == "retrace":
            return Retrace(number=number, which=_whole(said, "which", 0, 10**6), plan=_whole(said, "plan", 0, 10**6))
        raise expected("`ask` to be imagine or retrace", got=_shown(asked), do="correct it")
    except WamError as error:
        raise QuestionError(str(error), number) from error


def _object(frame: str) -> dict[str, Any]:
    try:
        said = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise expected("a question in JSON", got=_shown(error), do="send an object") from error
    if not isinstance(said, dict):
        raise expected("a question as an object", got=type(said).__name__, do="send an object")
    return said


def _imagine(said: Mapping[str, Any], number: int) -> Imagine:
    kind, told, push = said.get("kind", "none"), said.get("instruction"), said.get("push", {})
    if kind not in KINDS:
        raise expected(f"a kind of actions among {', '.join(KINDS)}", got=_shown(kind), do="name one of them")
    if told is not None and (not isinstance(told, str) or len(told) > WORDS):
        raise expected(f"a sentence of {WORDS} characters at most", got=_shown(told), do="shorten it")
    if not isinstance(push, dict) or len(push) > 64:
        raise expected("a push as an object of numbers", got=_shown(push), do="name its dimensions")
    return Imagine(
        number=number,
        place=_number(said, "place", 0.0, 1.0),
        instruction=told,
        kind=cast(Kind, kind),
        push={name: _number(push, name, -1e6, 1e6) for name in push},
        seed=_whole(said, "seed", 0, MOST_SEED),
        steps=_whole({"steps": 3, **said}, "steps", 1, MOST_STEPS),
        chunks=_whole({"chunks": 1, **said}, "chunks", 1, MOST_CHUNKS),
    )


def _number(said: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = said.get(name, 0.0)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not (math.isfinite(value) if isinstance(value, float) else True) or not low <= value <= high:
        raise expected(f"{_shown(name)} from {low:g} to {high:g}", got=_shown(value), do="correct it")
    return float(value)


def _whole(said: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = said.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise expected(f"a whole {name} from {low} to {high}", got=_shown(value), do="correct it")
    return value


def _shown(value: object) -> str:
    """The beginning of what came, so that an error is no longer than a sentence."""
    words = repr(value) if isinstance(value, str | int | float | bool | type(None)) else type(value).__name__
    return words if len(words) <= 60 else words[:57] + "..."
