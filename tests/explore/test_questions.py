"""Whatever a page sends is a question or one sentence, never an error of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wam.explore.viewer.questions import MOST_CHUNKS, Imagine, QuestionError, Retrace, read_question

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = ("ask", "number", "place", "instruction", "kind", "push", "seed", "steps", "chunks", "which", "plan")


def asked(**fields: Any) -> str:
    return json.dumps({"ask": "imagine", "number": 3, **fields})


def test_a_question_is_read_as_it_was_asked() -> None:
    found = read_question(asked(place=0.25, kind="push", push={"x": 1, "y": -0.5}, steps=5, instruction="go"))
    assert found == Imagine(number=3, place=0.25, kind="push", push={"x": 1.0, "y": -0.5}, steps=5, instruction="go")
    assert read_question('{"ask": "retrace", "number": 1, "which": 2, "plan": 4}') == Retrace(number=1, which=2, plan=4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ask": "dream"}, "imagine or retrace"),
        ({"place": 1.5}, "from 0 to 1"),
        ({"place": True}, "place"),
        ({"steps": 0}, "steps"),
        ({"steps": 3.5}, "steps"),
        ({"chunks": MOST_CHUNKS + 1}, "chunks"),
        ({"seed": -1}, "seed"),
        ({"kind": "shove"}, "push"),
        ({"push": [1]}, "push"),
        ({"push": {"x": "1"}}, "'x'"),
        ({"push": {"x": float("nan")}}, "'x'"),
        ({"push": {"x": 10**400}}, "'x'"),
        ({"instruction": "a" * 301}, "300 characters"),
        ({"instruction": 7}, "sentence"),
    ],
)
def test_what_does_not_fit_is_one_short_sentence_with_the_questions_number(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionError, match=said) as caught:
        read_question(asked(**fields))
    assert caught.value.number == 3
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("frame", ["", "[1]", "{", b"\x00\x01", "[" * 100_000, '{"number": "x"}', "null"])
def test_a_frame_that_is_no_question_is_a_sentence(frame: str | bytes) -> None:
    with pytest.raises(QuestionError):
        read_question(frame)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_anything_in_json_is_a_question_or_a_sentence(said: Any) -> None:
    try:
        found = read_question(json.dumps(said))
    except QuestionError:
        return
    assert isinstance(found, Imagine | Retrace)
