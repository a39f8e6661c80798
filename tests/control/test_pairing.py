"""A slow and a fast side: without delay it is as if one waited for the other, and with any delay nobody ever does."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.conftest import make_model
from tests.model.test_student import make_student
from wam.contracts import Observation, WamError
from wam.control.pairing import ABSENT, FRESH, STALE, Thinker, paired_in_step, paired_in_thread
from wam.control.policy import Policy
from wam.control.wam_policy import WamPolicy, to_batch
from wam.model.student import Student
from wam.model.thought import Thought, ThoughtConfig, think

CAMERAS, RATE, D = ("side", "top"), 10.0, 5


def pupil(*, max_age: int = 6, dim: int = D, **changes: object) -> Student:
    """At ten ticks a second."""
    student = make_student(thought=ThoughtConfig(kind="context", dim=dim, max_age=max_age), **changes)
    student.cameras = CAMERAS
    return student


def seen(value: int, instruction: str = "open the faucet") -> Observation:
    return Observation(
        images={name: np.full((16, 16, 3), value, np.uint8) for name in CAMERAS},
        state=np.full(4, value / 100, np.float32),
        instruction=instruction,
    )


class Says:
    """A slow side whose thought says which frame it is of."""

    chunk = 1

    def __init__(self) -> None:
        self.of: list[int] = []

    def reset(self, index: int | None = None) -> None: ...

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        (one,) = observations
        self.of.append(int(one.images["side"][0, 0, 0]))
        return np.full((1, 1, D), self.of[-1] / 100)


def alone(student: Student, observation: Observation, *, of: int | None = None, age: float = np.inf) -> np.ndarray:
    """What the student does when it is handed the thought of a frame."""
    batch = to_batch([observation], CAMERAS)
    thought = Thought(values=torch.full((1, D), (of or 0) / 100), age=torch.tensor([float(age)]))
    found = student.policy(batch, same_noise=True, thought=thought).action
    assert found is not None
    return np.clip(found.numpy(), -1, 1)


def test_without_delay_it_equals_a_model_that_is_waited_for() -> None:
    model = make_model()
    student = pupil(dim=think(model, to_batch([seen(1)], CAMERAS), kind="context").shape[1])
    policy = paired_in_step(student, Thinker(model, kind="context", cameras=CAMERAS), execute=2, hz=RATE, delay=0.0)
    assert isinstance(policy, Policy)
    for value in (3, 90, 200):
        batch = to_batch([seen(value)], CAMERAS)
        fresh = Thought(values=think(model, batch, kind="context"), age=torch.zeros(1))
        wanted = student.policy(batch, steps=4, same_noise=True, thought=fresh).action
        assert wanted is not None
        np.testing.assert_allclose(policy.act([seen(value)]), np.clip(wanted.numpy(), -1, 1), atol=1e-5)
    assert policy.tally == {FRESH: 3, STALE: 0, ABSENT: 0}
    assert policy.ages.summary.max == 0


def test_a_thought_comes_late_ages_and_is_replaced() -> None:
    student, slow = pupil(), Says()
    policy = paired_in_step(student, slow, execute=2, hz=RATE / 4, delay=0.3)  # type: ignore[arg-type]
    # asked at ticks 0, 2, 4, ...; thoughts begin at ticks 0 and 4 and are there three ticks later
    expected = [(None, np.inf), (None, np.inf), (0, 4), (0, 6), (4, 4), (4, 6), (8, 4)]
    for call, (of, age) in enumerate(expected):
        now = seen(2 * call)
        np.testing.assert_allclose(policy.act([now])[0], alone(student, now, of=of, age=age)[0], atol=1e-5)
    assert slow.of == [0, 4, 8, 12]
    assert policy.tally == {FRESH: 5, STALE: 0, ABSENT: 2}
    assert policy.ages.summary.max == pytest.approx(0.6)
    assert policy.thinking.summary.p50 == pytest.approx(0.3)


def test_a_thought_that_is_too_old_is_counted_and_the_student_acts_alone() -> None:
    student = pupil(max_age=3)
    policy = paired_in_step(student, Says(), execute=2, hz=RATE / 8, delay=0.0)  # type: ignore[arg-type]
    chunks = [policy.act([seen(2 * call)])[0] for call in range(5)]
    for call, age in enumerate((0, 2, 4, 6, 0)):
        of, age = (2 * call - age, age) if age <= 3 else (None, np.inf)
        np.testing.assert_allclose(chunks[call], alone(student, seen(2 * call), of=of, age=age)[0], atol=1e-5)
    assert policy.tally == {FRESH: 3, STALE: 2, ABSENT: 0}


def test_simulated_time_repeats() -> None:
    def run() -> list[np.ndarray]:
        policy = paired_in_step(pupil(), Says(), execute=3, hz=2.0, delay=0.45)  # type: ignore[arg-type]
        found = [policy.act([seen(7 * call), seen(5 * call)]) for call in range(6)]
        policy.reset(1)
        return [*found, policy.act([seen(50), seen(60)])]

    np.testing.assert_array_equal(run(), run())


def test_another_episode_and_another_sentence_begin_without_a_thought() -> None:
    policy = paired_in_step(pupil(), Says(), execute=2, hz=RATE, delay=0.2)  # type: ignore[arg-type]
    for again in (lambda: policy.reset(0), policy.reset, lambda: None):
        policy.act([seen(1)])
        policy.act([seen(2)])
        before = policy.tally[ABSENT]
        again()
        policy.act([seen(3, "close it")])
        assert policy.tally[ABSENT] == before + 1
        policy.reset()


def test_slots_think_apart() -> None:
    student, slow = pupil(), Says()
    policy = paired_in_step(student, slow, execute=1, hz=RATE, delay=0.1)  # type: ignore[arg-type]
    policy.act([seen(10), seen(200)])
    both = policy.act([seen(11)], slots=[1])
    np.testing.assert_allclose(both[0], alone(student, seen(11), of=200, age=1)[0], atol=1e-5)
    policy.reset(1)
    found = policy.act([seen(12), seen(201)])
    np.testing.assert_allclose(found[0], alone(student, seen(12), of=10, age=1)[0], atol=1e-5)
    np.testing.assert_allclose(found[1], alone(student, seen(201))[0], atol=1e-5)


class Stuck(Says):
    """Thinks for as long as it is made to."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.begun = threading.Event(), threading.Event()

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(20)
        return super().act(observations, slots)


def eventually(condition: object, *, within: float = 10.0) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.005)
    return False


def test_the_fast_side_never_waits_for_the_slow_one() -> None:
    student, slow = pupil(), Stuck()
    now = [0.0]
    policy = paired_in_thread(student, slow, hz=RATE / 100, clock=lambda: now[0])  # type: ignore[arg-type]
    for call in range(4):  # returns although nothing was ever thought to its end
        found = policy.act([seen(call), seen(100 + call)])
        np.testing.assert_allclose(found[0], alone(student, seen(call))[0], atol=1e-5)
    policy.reset(1)  # nor does forgetting wait
    assert slow.begun.is_set() or eventually(slow.begun.is_set)
    assert policy.tally == {FRESH: 0, STALE: 0, ABSENT: 8}
    slow.go.set()
    now[0] = 0.4
    assert eventually(lambda: policy.act([seen(9)]) is not None and policy.tally[FRESH] > 0)
    np.testing.assert_allclose(policy.act([seen(9)])[0], alone(student, seen(9), of=0, age=4)[0], atol=1e-5)
    assert slow.of[0] == 0
    assert 100 not in slow.of, "what was not begun when its slot forgot is not thought of"


def test_many_resets_leave_no_queue_behind() -> None:
    slow = Stuck()
    policy = paired_in_thread(pupil(), slow, hz=RATE, clock=lambda: 0.0)  # type: ignore[arg-type]
    for call in range(20):
        policy.act([seen(call)])
        policy.reset(0)
    slow.go.set()
    policy.act([seen(99)])
    assert eventually(lambda: 99 in slow.of)
    assert len(slow.of) <= 3  # the one under way, and the last


def test_what_the_slow_side_raises_is_not_hidden() -> None:
    class Broken(Says):
        def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
            raise RuntimeError("out of memory")

    policy = paired_in_thread(pupil(), Broken(), hz=RATE, clock=lambda: 0.0)  # type: ignore[arg-type]

    def acts_until_it_raises() -> bool:
        try:
            policy.act([seen(1)])
        except RuntimeError:
            return True
        return False

    assert eventually(acts_until_it_raises)


def test_a_student_that_acts_alone_is_not_paired() -> None:
    with pytest.raises(WamError, match="acts alone"):
        paired_in_step(make_student(), Says(), execute=2, hz=2.0, delay=0.0, cameras=CAMERAS)  # type: ignore[arg-type]
    student = pupil()
    student.action_space = None
    with pytest.raises(WamError, match="action space"):
        paired_in_step(student, Says(), execute=2, hz=2.0, delay=0.0)  # type: ignore[arg-type]


def test_a_model_that_looks_back_is_no_thinker() -> None:
    with pytest.raises(WamError, match="looks back over 2"):
        Thinker(make_model(visibility="causal", history=2, history_stride=4), kind="context")
    with pytest.raises(WamError, match="context or goal"):
        Thinker(make_model(), kind="none")


def test_thoughts_of_another_model_are_refused() -> None:
    model = make_model()
    policy = paired_in_step(pupil(), Thinker(model, kind="context", cameras=CAMERAS), execute=2, hz=2.0, delay=0.0)
    with pytest.raises(WamError, match="learned from"):
        policy.act([seen(1)])
    mixed = replace(seen(2), instruction="close it")
    with pytest.raises(WamError, match="learned from"):
        policy.act([seen(1), mixed])


def test_alone_it_is_the_policy_that_it_was() -> None:
    student = pupil()
    np.testing.assert_allclose(WamPolicy(student).act([seen(3)]), alone(student, seen(3)), atol=1e-5)
