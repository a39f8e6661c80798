"""The fuzzer finds what a broken guard lets through, for each question that the guard may forget to ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from wam.control import stages
from wam.control.guard import SafetyGuard, Verdict
from wam.evaluation.bench.fuzz_guard import FAULTS, bench_fuzz_guard
from wam.evaluation.bench.timing import BenchResult


def fuzzed(make_guard: Callable[..., SafetyGuard] = SafetyGuard, chunks: int = 250) -> BenchResult:
    with np.errstate(over="ignore", invalid="ignore"):  # broken guards move the hand to the end of the world
        return bench_fuzz_guard(chunks=chunks, make_guard=make_guard)


def without(*forgotten: stages.Stage) -> type[SafetyGuard]:
    class Forgetful(SafetyGuard):
        stages = tuple(stage for stage in SafetyGuard.stages if stage not in forgotten)
        moment_stages = tuple(stage for stage in SafetyGuard.moment_stages if stage not in forgotten)

    return Forgetful


@pytest.fixture(scope="module")
def sound() -> BenchResult:
    return fuzzed(chunks=500)


def test_nothing_escapes_a_sound_guard_and_every_fault_was_tried(sound: BenchResult) -> None:
    assert (sound.figures["escaped"], sound.figures["crashed"], sound.missed) == (0, 0, [])
    assert set(sound.detail["chunks"]) == set(FAULTS)
    assert sound.detail["commands"] > 2000


def test_every_question_had_to_be_asked(sound: BenchResult) -> None:
    asked = {reason for counts in sound.detail["interventions"].values() for reason in counts}
    assert asked == set(stages.REASONS)


@pytest.mark.parametrize(
    ("forgotten", "found"),
    [
        ((stages.position,), "outside its limits"),
        ((stages.velocity,), "too fast"),
        ((stages.acceleration,), "speeds up too much"),
        ((stages.workspace,), "leaves the workspace"),
        ((stages.collision,), "hits what is occupied"),
        ((stages.age,), "moved by an old observation"),
        ((stages.watchdog,), "moved after a silence"),
        ((stages.estop,), "moved while stopped"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].__name__,
)
def test_a_guard_that_forgets_a_question_lets_commands_escape(forgotten: tuple[stages.Stage, ...], found: str) -> None:
    result = fuzzed(without(*forgotten))
    assert result.figures["escaped"] > 0
    assert "escaped" in result.missed
    assert result.detail["escapes"][found] > 0


class Trusting(SafetyGuard):
    """Sends whatever it is given, as far as that is a list of numbers."""

    def check(self, action: Any, **about: Any) -> Verdict:
        verdict = super().check(action, **about)
        numbers = stages.as_numbers(action)
        return verdict if numbers is None else Verdict(action=numbers)


def test_a_guard_that_trusts_lets_everything_escape() -> None:
    found = fuzzed(Trusting).detail["escapes"]
    assert {"no action", "not finite", "outside its limits", "too fast", "leaves the workspace"} <= set(found)


class Frozen(SafetyGuard):
    """Always holds: nothing escapes, and nothing is done."""

    def check(self, action: Any, **about: Any) -> Verdict:
        return super().check(None, **about)


def test_a_guard_that_only_holds_is_found_too() -> None:
    result = fuzzed(Frozen, chunks=100)
    assert result.figures["escaped"] == 0
    assert result.missed == ["plain_moved"]


class Raising(SafetyGuard):
    def vet(self, chunk: Any, **about: Any) -> Any:
        return np.sum(chunk, axis=1)


def test_a_guard_that_raises_is_counted() -> None:
    assert fuzzed(Raising, chunks=100).figures["crashed"] > 0
