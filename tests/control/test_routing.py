"""Routing: the large policy gets the share of chunks that it was given, those of most doubt, and nobody else's slots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.model.conftest import make_model
from tests.model.test_student import make_student
from wam.contracts import Observation, WamError
from wam.control.doubt import Calibration, Doubter, ErrorHead
from wam.control.policy import Policy
from wam.control.routing import LARGE, SMALL, RoutedPolicy, load_routed
from wam.control.wam_policy import WamPolicy
from wam.files import sha256
from wam.model.pretrained import save_pretrained

CAMERAS = ("side", "top")


def seen(value: float) -> Observation:
    picture = np.full((16, 16, 3), int(value) % 256, np.uint8)
    return Observation(images=dict.fromkeys(CAMERAS, picture), state=np.full(4, value, np.float32))


class Unsure:
    """As unsure as its state says; acts 1."""

    chunk = 6

    def __init__(self) -> None:
        self.resets: list[int | None] = []

    def reset(self, index: int | None = None) -> None:
        self.resets.append(index)

    def ask(self, observations: Sequence[Observation], slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        doubt = np.array([o.state[0] for o in observations])  # type: ignore[index]
        return np.ones((len(observations), self.chunk, 2)), doubt


class Large:
    """Acts its slot's number, in the hundreds."""

    chunk = 4

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.resets: list[int | None] = []

    def reset(self, index: int | None = None) -> None:
        self.resets.append(index)

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        slots = range(len(observations)) if slots is None else slots
        self.asked.append(list(slots))
        return np.stack([np.full((self.chunk, 2), 100.0 + slot) for slot in slots])


def calibrated(scores: Sequence[float]) -> Calibration:
    return Calibration(doubt="change", execute=2).of(np.array(scores))


finite = st.floats(-1e6, 1e6, width=32)


@given(st.lists(finite, min_size=1, max_size=60, unique=True), st.floats(0, 1))
def test_the_share_is_the_one_asked_for_on_the_calibrations_own_chunks(scores: list[float], share: float) -> None:
    limit = calibrated(scores).threshold(share)
    assert sum(score > limit for score in scores) == math.floor(share * len(scores) + 1e-9)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0, 1))
def test_equal_doubts_never_make_it_more_than_was_asked_for(scores: list[int], share: float) -> None:
    limit = calibrated(scores).threshold(share)
    assert sum(score > limit for score in scores) <= share * len(scores) + 1e-6


@given(st.lists(finite, min_size=1, max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_has_no_higher_threshold(scores: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert calibrated(scores).threshold(high) <= calibrated(scores).threshold(low)


@given(st.lists(finite, min_size=1, max_size=12), finite, finite)
def test_a_lower_threshold_routes_all_that_a_higher_one_does(states: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    routed = []
    for limit in (low, high):
        policy = RoutedPolicy(Unsure(), Large(), threshold=limit)
        actions = policy.act([seen(state) for state in states])
        routed.append(actions[:, 0, 0] > 1)
        assert policy.tally == {SMALL: int((~routed[-1]).sum()), LARGE: int(routed[-1].sum())}
    assert (routed[0] | ~routed[1]).all()


def test_slots_of_a_batch_are_routed_apart() -> None:
    small, large = Unsure(), Large()
    policy = RoutedPolicy(small, large, threshold=5.0)
    assert isinstance(policy, Policy)
    assert policy.chunk == 4
    found = policy.act([seen(1), seen(9), seen(5), seen(7)], slots=[3, 1, 0, 6])
    assert found.shape == (4, 4, 2)
    assert found[:, 0, 0].tolist() == [1, 101, 1, 106]
    assert large.asked == [[1, 6]]
    policy.act([seen(1)])
    assert large.asked == [[1, 6]], "it is not asked where nobody is unsure"
    assert policy.share == pytest.approx(2 / 5)
    assert (policy.small_time.summary.n, policy.large_time.summary.n) == (2, 1)
    policy.reset(2)
    assert small.resets == large.resets == [2]


def test_doubt_that_is_no_number_goes_to_the_large_policy() -> None:
    class Broken(Unsure):
        def ask(self, observations: Sequence[Observation], slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
            return super().ask(observations, slots)[0], np.array([math.nan, math.inf])

    policy = RoutedPolicy(Broken(), Large(), threshold=5.0)
    assert policy.act([seen(1), seen(1)])[:, 0, 0].tolist() == [100, 101]


def test_nothing_was_shared_before_the_first_chunk() -> None:
    assert math.isnan(RoutedPolicy(Unsure(), Large(), threshold=0.0).share)


class TestDoubt:
    def doubter(self, doubt: str, *, kind: str = "l1", **changes: object) -> Doubter:
        policy = WamPolicy(make_student(head=kind), cameras=CAMERAS, steps=2)
        return Doubter(policy, Calibration(doubt=doubt, execute=2, **changes))  # type: ignore[arg-type]

    @pytest.mark.parametrize(("doubt", "kind"), [("draws", "flow"), ("change", "l1"), ("change", "flow")])
    def test_a_student_plans_what_it_would_plan_without_doubt(self, doubt: str, kind: str) -> None:
        doubter = self.doubter(doubt, kind=kind)
        observations = [seen(1), seen(80)]
        np.testing.assert_allclose(doubter.ask(observations, [0, 1])[0], doubter.policy.act(observations), atol=1e-5)

    def test_draws_that_agree_are_no_doubt(self) -> None:
        doubter = self.doubter("draws", kind="flow")
        _, doubt = doubter.ask([seen(1), seen(80)], [0, 1])
        assert (doubt > 1e-4).all()
        with torch.no_grad():
            for name, parameter in doubter.student.head.named_parameters():
                if name.startswith("out"):
                    parameter.zero_()  # the head reads the feature alone
        _, doubt = doubter.ask([seen(1)], [0])
        assert doubt[0] == pytest.approx(0, abs=1e-5)

    def test_change_is_how_far_a_chunk_is_from_what_the_last_one_said(self) -> None:
        doubter = self.doubter("change")
        scale = doubter.student.normalizer("action").scale.numpy()
        assert doubter.ask([seen(1)], [0])[1][0] == 0
        with torch.no_grad():
            one, two = (doubter.student.chunk(doubter.policy.seen([seen(value)])).numpy()[0] for value in (1, 90))
        _, doubt = doubter.ask([seen(90)], [0])
        assert doubt[0] == pytest.approx(float(np.abs((one[2:] - two[:-2]) / scale).mean()), rel=1e-4)
        assert doubter.ask([seen(90)], [1])[1][0] == 0, "slots remember apart"
        assert doubter.ask([seen(1)], [0])[1][0] > 0
        doubter.reset(0)
        assert doubter.ask([seen(90)], [0])[1][0] == 0

    def test_a_head_learns_which_features_go_wrong(self) -> None:
        g = torch.Generator().manual_seed(0)
        z = torch.randn(400, 12, generator=g)
        error = torch.exp(z[:, 3] - 2 + 0.1 * torch.randn(400, generator=g))
        head = ErrorHead.fit(z[:300], error[:300], ridge=0.01)
        found, wanted = head(z[300:]), error[300:].log()
        assert float(torch.corrcoef(torch.stack([found, wanted]))[0, 1]) > 0.95
        assert float((found - wanted).abs().mean()) < 0.2

    def test_a_feature_that_never_changes_is_no_trouble(self) -> None:
        z = torch.cat([torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.ones(20, 1)], dim=1)
        head = ErrorHead.fit(z, torch.rand(20, generator=torch.Generator().manual_seed(1)))
        assert np.isfinite(head.weight).all()

    def test_doubt_by_error_is_the_heads(self) -> None:
        width = make_student().config.width
        head = ErrorHead(center=(0.0,) * width, weight=(0.1,) * width, bias=-1.0)
        doubter = self.doubter("error", head=head)
        _, doubt, z = doubter.explain([seen(3)], [0])
        assert doubt[0] == pytest.approx(0.1 * float(z.sum()) - 1, rel=1e-4)

    @pytest.mark.parametrize(
        ("doubt", "changes", "words"),
        [
            ("draws", {}, "flow head"),
            ("error", {}, "layer fitted"),
            ("change", {"execute": 8}, "execute from 1 to 7"),
        ],
    )
    def test_what_cannot_doubt_says_so(self, doubt: str, changes: dict[str, int], words: str) -> None:
        policy = WamPolicy(make_student(), cameras=CAMERAS)
        with pytest.raises(WamError, match=words):
            Doubter(policy, Calibration(doubt=doubt, **({"execute": 2} | changes)))  # type: ignore[arg-type]
        with pytest.raises(WamError, match="a student"):
            Doubter(WamPolicy(make_model(), cameras=CAMERAS), Calibration(doubt="change", execute=2))


class TestFiles:
    def test_a_calibration_is_read_back_as_it_was(self, tmp_path: Path) -> None:
        head = ErrorHead(center=(0.5, 1.0), weight=(2.0, 3.0), bias=0.25)
        how = Calibration(doubt="error", execute=3, head=head, student="abc").of(np.array([3.0, 2.0, 1.0]))
        how.save(tmp_path / "a.json")
        assert Calibration.load(tmp_path / "a.json") == how
        assert how.scores == (1.0, 2.0, 3.0)
        with pytest.raises(WamError, match="finite doubts"):
            how.of(np.array([1.0, math.nan]))

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"doubt": 3}', '{"head": 1, "scores": []}'])
    def test_what_is_no_calibration_says_so(self, content: str, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(WamError, match="wam eval routing"):
            Calibration.load(tmp_path / "a.json")

    def test_a_student_is_loaded_with_its_teacher_and_no_other_calibration(self, tmp_path: Path) -> None:
        save_pretrained(make_model(), tmp_path / "teacher", cameras=CAMERAS)
        weights = sha256(tmp_path / "teacher" / "model.safetensors")
        student, folder = make_student(), tmp_path / "student"
        named = {"checkpoint": str(tmp_path / "teacher"), "sha256": weights}
        student.save_pretrained(folder, cameras=CAMERAS, provenance={"teacher": named})
        own = sha256(folder / "model.safetensors")
        how = Calibration(doubt="change", execute=2, student=own).of(np.arange(10.0))
        how.save(tmp_path / "good.json")
        policy = load_routed(folder, calibration=tmp_path / "good.json", share=0.5)
        assert policy.threshold == 4.0
        policy.threshold = -1.0
        large = WamPolicy(make_model(), cameras=CAMERAS, steps=1)
        np.testing.assert_allclose(policy.act([seen(1)]), large.act([seen(1)]), atol=1e-5)
        assert policy.tally == {SMALL: 0, LARGE: 1}
        Calibration(doubt="change", execute=2, student="other").of(np.arange(3.0)).save(tmp_path / "bad.json")
        with pytest.raises(WamError, match="wam eval routing"):
            load_routed(folder, calibration=tmp_path / "bad.json", share=0.5)

    @pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
    def test_a_share_is_between_none_and_all(self, share: float) -> None:
        with pytest.raises(WamError, match="from 0 to 1"):
            calibrated([1.0]).threshold(share)
        with pytest.raises(WamError, match="held-out chunks"):
            calibrated([]).threshold(0.5)
