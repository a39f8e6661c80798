"""A failed gate is seen in a terminal, with what it means."""

import math

from wam.evaluation.gates import TARGETS, judge
from wam.evaluation.terminal import format_gates
from wam.evaluation.words import GATES


def test_failures_are_named_and_explained_and_passes_are_counted():
    text = format_gates(
        [judge("forward_gain_db", 4.2, n=256, steps=1), judge("action_sensitivity", 1.0, n=256, steps=3)]
    )
    lines = text.splitlines()
    assert "PASS  forward_gain_db     1 step" in lines[1]
    assert "4.20 dB" in lines[1]
    assert "FAIL  action_sensitivity  3 steps" in lines[2]
    assert "at least 1.8" in lines[2]
    assert "hardly depends on the action" in lines[3]
    assert lines[-1].strip() == "1 of 2 passed"


def test_what_could_not_be_measured_is_a_failure_in_words():
    text = format_gates([judge("inverse_r2_gain", math.nan, n=3)])
    assert "FAIL" in text
    assert "not measurable" in text
    assert format_gates([]) == "world-model gates: not measured"


def test_colour_is_only_used_when_asked_for():
    results = [judge("wrong_text_success", 0.5, n=40)]
    assert "\033[31mFAIL" in format_gates(results, colour=True)
    assert "\033" not in format_gates(results)


def test_every_gate_with_a_target_has_words():
    assert set(GATES) == set(TARGETS)
