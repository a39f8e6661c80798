"""Thoughts: what is too old, of the future or absent counts for nothing, and a teacher hands over what moves its own action."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.model.conftest import make_batch, make_model
from tests.model.test_student import chunk, make_student
from wam.contracts import WamError
from wam.model.student import Student, StudentConfig, sized
from wam.model.thought import Recall, Thought, ThoughtConfig, think

D, OLDEST = 6, 10


def handed(seed: int = 0, **changes: object) -> Student:
    return make_student(seed, thought=ThoughtConfig(kind="context", dim=D, max_age=OLDEST), **changes)


def thoughts(*ages: float, seed: int = 0) -> Thought:
    values = torch.randn(len(ages), D, generator=torch.Generator().manual_seed(seed))
    return Thought(values=values, age=torch.tensor(ages, dtype=torch.float32))


@given(st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_a_thought_counts_from_its_frame_to_its_oldest_age(age: float) -> None:
    recall = Recall(ThoughtConfig(kind="context", dim=D, max_age=OLDEST), 4)
    with torch.no_grad():
        recall.nothing.normal_()
    found, nothing = recall(thoughts(age), 1), recall(None, 1)
    assert torch.equal(found, nothing) == (not 0 <= age <= OLDEST)


def test_each_row_has_a_thought_of_its_own() -> None:
    student, batch = handed(), make_batch()
    some = thoughts(0, torch.inf, 3)
    found, alone = chunk(student, batch, thought=some), chunk(student, batch)
    assert torch.equal(found[1], alone[1])
    for row in (0, 2):
        assert (found[row] - alone[row]).abs().max() > 1e-3
        by_itself = chunk(student, batch[[row]], thought=Thought(values=some.values[[row]], age=some.age[[row]]))
        torch.testing.assert_close(found[row], by_itself[0], atol=1e-5, rtol=0)


def test_a_student_is_told_how_old_a_thought_is() -> None:
    student, batch = handed(), make_batch()
    now, then = (chunk(student, batch, thought=thoughts(age, age, age)) for age in (0, 8))
    assert (now - then).abs().max() > 1e-3


def test_an_absent_thought_sends_no_nan_back() -> None:
    student, batch = handed().train(), make_batch()
    some = thoughts(torch.inf, torch.nan, 2)
    student.chunk(
        batch, thought=Thought(values=some.values / 0, age=some.age.clone().fill_(torch.inf))
    ).sum().backward()
    assert student.recall is not None
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in student.parameters())
    assert student.recall.nothing.grad is not None
    assert student.recall.nothing.grad.abs().sum() > 0


def test_a_student_that_acts_alone_is_what_it_was_and_takes_no_thought() -> None:
    plain = make_student()
    assert plain.recall is None
    with pytest.raises(WamError, match="acts alone"):
        plain.chunk(make_batch(), thought=thoughts(0, 0, 0))
    with pytest.raises(WamError, match=r"\(3, 6\)"):
        handed().chunk(make_batch(), thought=thoughts(0, 0))


def test_the_one_knob_counts_what_reads_thoughts() -> None:
    config = StudentConfig(size=1.0, thought=ThoughtConfig(kind="context", dim=768))
    parameters = sum(p.numel() for p in Student(sized(config)).parameters())
    assert parameters == pytest.approx(1e6, rel=0.05)


def test_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    student = handed()
    student.save_pretrained(tmp_path, cameras=("side", "top"))
    again, some = Student.from_pretrained(tmp_path), thoughts(1, 2, 3)
    assert again.config.thought == student.config.thought
    torch.testing.assert_close(chunk(again, make_batch(), thought=some), chunk(student, make_batch(), thought=some))


@pytest.mark.parametrize("change", [{"max_age": 0}, {"dropout": 1.5}, {"steps": 0}])
def test_what_cannot_be_handed_over_says_so(change: dict[str, float]) -> None:
    with pytest.raises(WamError, match=r"student\.thought"):
        StudentConfig(thought=ThoughtConfig(kind="context", **change)).validate()  # type: ignore[arg-type]


class TestThinking:
    def test_a_thought_is_what_modulates_the_action(self) -> None:
        model, batch = make_model(), make_batch()
        context = model.context(batch)
        found = think(model, batch, kind="context")
        own = [context.summaries[s][:, 0] for s in model.network.table.modulators("action", context.summaries)]
        torch.testing.assert_close(found, torch.cat(own, dim=1))
        torch.testing.assert_close(found, think(model, batch, kind="context", context=context))

    def test_a_goal_adds_the_frame_that_is_imagined(self) -> None:
        model, batch = make_model(), make_batch()
        plain, goal = (think(model, batch, kind=kind) for kind in ("context", "goal"))  # type: ignore[arg-type]
        torch.testing.assert_close(goal[:, : plain.shape[1]], plain)
        ahead = goal[:, plain.shape[1] :]
        future = model.imagine(batch, steps=1, seed=0, same_noise=True).future
        assert future is not None
        shown = (future[:, :, -1:] * 255).round().to(torch.uint8)
        seen = model.context(batch.replace(images=shown).without("state", "future", "action", "action_mask"))
        torch.testing.assert_close(ahead, seen.summaries["observation"][:, 0])

    def test_a_row_is_thought_of_by_itself(self) -> None:
        model, batch = make_model(), make_batch()
        for kind in ("context", "goal"):
            torch.testing.assert_close(
                think(model, batch, kind=kind)[1:2],  # type: ignore[arg-type]
                think(model, batch[[1]], kind=kind),  # type: ignore[arg-type]
                atol=2e-2,  # a frame is rounded to 8 bits on the way
                rtol=0,
            )

    def test_a_model_that_has_nothing_to_hand_over_says_so(self) -> None:
        model = make_model(visibility={"extends": "joint", "modulated_by": {"action": []}})
        with pytest.raises(WamError, match="modulates its action"):
            think(model, make_batch(), kind="context")
        back = make_model(visibility="causal", history=2, history_stride=4)
        with pytest.raises(WamError, match="kind `goal`"):
            think(back, make_batch(history=2), kind="goal")
