"""What each gate asks, in plain words, for the report and for terminals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wam.evaluation.gates import GateResult


@dataclass(frozen=True, kw_only=True)
class Words:
    """title: a few words. meaning: what is measured. failed: what a failure says about the model. unit: behind the value."""

    title: str
    meaning: str
    failed: str
    unit: str = ""


GATES: Mapping[str, Words] = {
    "action_sensitivity": Words(
        title="It listens to actions",
        meaning="How many times worse its foresight of moving pixels gets when it is told somebody else's actions. "
        "1 means that actions make no difference.",
        failed="The imagined video hardly depends on the action: as a simulator or a planner this model is of no use.",
        unit="×",
    ),
    "forward_gain_db": Words(
        title="It foresees outcomes",
        meaning="Given the present and the actions, how much nearer the predicted frames are to the real ones than a copy "
        "of the last frame.",
        failed="Told what the robot will do, it foresees little more than a still picture would.",
        unit=" dB",
    ),
    "imagine_gain_db": Words(
        title="It foresees the task",
        meaning="The same without any actions, on expert episodes: from picture and sentence alone.",
        failed="From picture and sentence alone it foresees little more than a still picture would.",
        unit=" dB",
    ),
    "inverse_r2_gain": Words(
        title="It reads motion from video",
        meaning="On random play: how much better it knows the hand's motion when it sees the future than when it guesses "
        "(R², 1 is perfect).",
        failed="Seeing the future tells it too little of how the hand moved: video and actions are hardly linked.",
    ),
    "wrong_text_success": Words(
        title="It obeys the sentence",
        meaning="How often it still solves a task although told to do the other task of the same scene. Low is good.",
        failed="It does the task of the scene whatever it is told: the sentence does not decide.",
    ),
}


def words_for(name: str) -> Words:
    """The words of a gate; an unknown one speaks for itself."""
    return GATES.get(name, Words(title=name.replace("_", " "), meaning="", failed="The target was not reached."))


def number(value: float | None, digits: int = 2) -> str:
    """A figure for people; what is not finite is said in words."""
    if value is None or math.isnan(value):
        return "not measurable"
    if math.isinf(value) or abs(value) >= 1e6:
        return "> any" if value > 0 else "< any"
    return f"{value:.{digits}f}"


def target_words(result: GateResult) -> str:
    """Such as "at least 1.8"."""
    return f"{'at least' if result.direction == 'at_least' else 'at most'} {result.target:g}"
