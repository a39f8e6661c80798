"""What drives a robot is known by what it can do."""

import numpy as np
import pytest
import torch

from tests.model.conftest import make_model
from wam.contracts import ActionSpace, Batch, Observation, WamError
from wam.control.continuation import Continuation, ContinuingPolicy
from wam.control.policy import Foreseeing, Policy
from wam.control.wam_policy import WamPolicy
from wam.model.cloning import CloningConfig, CloningPolicy


class Still:
    chunk = 4

    def reset(self, index=None):
        pass

    def act(self, observations):
        return np.zeros((len(observations), self.chunk, 2))


def test_anything_that_acts_in_chunks_is_a_policy():
    assert isinstance(Still(), Policy)
    assert not isinstance(np.zeros(3), Policy)


def test_the_interface_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, wam.control.policy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def seen(value: int) -> Observation:
    return Observation(
        images={name: np.full((16, 16, 3), value, np.uint8) for name in ("side", "top")},
        state=np.zeros(4, np.float32),
        instruction="open the faucet",
    )


def shown_to(model, monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """What the model is shown at each call: per slot, the grey values of its frames."""
    calls: list[list[list[int]]] = []
    policy = model.policy

    def spy(batch: Batch, **options):
        calls.append(batch.images[:, 0, :, 0, 0, 0].tolist())
        return policy(batch, **options)

    monkeypatch.setattr(model, "policy", spy)
    return calls


@torch.no_grad()
def test_a_policy_that_looks_back_gets_the_frames_of_its_own_slot_and_episode(monkeypatch: pytest.MonkeyPatch):
    model = make_model(visibility="causal", history=3, history_stride=4)
    calls = shown_to(model, monkeypatch)
    policy = WamPolicy(model, cameras=("side", "top"), steps=1)
    policy.act([seen(1), seen(101)])
    policy.act([seen(2), seen(102)])
    policy.act([seen(3), seen(103)])
    policy.act([seen(4)])
    policy.reset(0)
    policy.act([seen(5), seen(105)])
    assert calls == [
        [[1, 1, 1], [101, 101, 101]],
        [[1, 1, 2], [101, 101, 102]],
        [[1, 2, 3], [101, 102, 103]],
        [[2, 3, 4]],
        [[5, 5, 5], [102, 103, 105]],
    ]
    policy.reset()
    policy.act([seen(6)])
    assert calls[-1] == [[6, 6, 6]]


@torch.no_grad()
def test_a_policy_of_one_frame_remembers_nothing(monkeypatch: pytest.MonkeyPatch):
    model = make_model()
    calls = shown_to(model, monkeypatch)
    policy = WamPolicy(model, cameras=("side", "top"), steps=1)
    policy.act([seen(1)])
    policy.act([seen(2)])
    assert calls == [[[1]], [[2]]]


SETTLED = np.linspace(-0.5, 0.5, 20, dtype=np.float32).reshape(5, 4)


@torch.no_grad()
def test_a_world_action_model_continues_each_slot_by_itself():
    policy = WamPolicy(make_model(), cameras=("side", "top"), steps=2)
    assert isinstance(policy, ContinuingPolicy)
    observations = [seen(10), seen(200)]
    plain = policy.act(observations)
    left = Continuation(actions=SETTLED, delay=3, method="prefix")
    found = policy.continue_from(observations, [None, left])
    np.testing.assert_allclose(found[0], plain[0], atol=1e-5)
    np.testing.assert_allclose(found[1, :3], SETTLED[:3], atol=1e-5)
    assert np.abs(found[1] - plain[1]).max() > 0.01
    np.testing.assert_allclose(policy.continue_from(observations, [None, None]), plain)


def test_what_cannot_be_continued_says_so():
    policy = WamPolicy(make_model(), cameras=("side", "top"), steps=1)
    left = Continuation(actions=SETTLED, delay=3, method="prefix")
    with pytest.raises(WamError, match="alike"):
        policy.continue_from([seen(1), seen(1)], [left, Continuation(actions=SETTLED, delay=3)])
    policy.model.action_space = ActionSpace(
        names=tuple("xyzg"), units=("m",) * 4, low=(-1.0,) * 4, high=(1.0,) * 4, kind="relative", rate_hz=10
    )
    with pytest.raises(WamError, match="relative"):
        policy.continue_from([seen(1)], [left])
    cloning = WamPolicy(CloningPolicy(CloningConfig(channels=8, width=16)), cameras=("side", "top"))
    with pytest.raises(WamError, match="by `blend`"):
        cloning.continue_from([seen(1)], [left])


@torch.no_grad()
def test_slots_that_are_not_named_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch):
    model = make_model(visibility="causal", history=2, history_stride=4)
    calls = shown_to(model, monkeypatch)
    policy = WamPolicy(model, cameras=("side", "top"), steps=1)
    policy.act([seen(1), seen(101)])
    policy.act([seen(102)], slots=[1])
    policy.act([seen(103), seen(2)], slots=[1, 0])
    assert calls == [[[1, 1], [101, 101]], [[101, 102]], [[102, 103], [1, 2]]]


@pytest.mark.parametrize("history", [1, 3])
def test_what_is_foreseen_follows_the_actions_and_changes_no_memory(history: int, monkeypatch: pytest.MonkeyPatch):
    changes = {"visibility": "causal", "history": history, "history_stride": 4} if history > 1 else {}
    model = make_model(**changes)
    policy = WamPolicy(model, cameras=("side", "top"), steps=2)
    assert isinstance(policy, Foreseeing)
    policy.act([seen(1)])
    policy.act([seen(50)])
    calls = shown_to(model, monkeypatch)
    still, moved = (policy.foresee(seen(50), np.full((8, 4), push)) for push in (0.0, 1.0))
    assert still.shape == (2, 2, 16, 16, 3)
    assert still.dtype == np.uint8
    assert not np.array_equal(still, moved)
    policy.act([seen(51)])
    assert calls == [[[1, 50, 51][-history:]]]


def test_a_policy_without_a_world_model_foresees_nothing():
    policy = WamPolicy(CloningPolicy(CloningConfig()), cameras=("side", "top"))
    assert policy.foresee(seen(1), np.zeros((8, 4))) is None


def test_only_a_policy_that_imagines_along_may_stop_its_future_early():
    policy = WamPolicy(make_model(), cameras=("side", "top"), conditional="joint", steps=2, future_stop=0.9)
    whole = WamPolicy(make_model(), cameras=("side", "top"), conditional="joint", steps=2)
    assert np.abs(policy.act([seen(9)]) - whole.act([seen(9)])).max() > 0
    with pytest.raises(WamError, match="conditional joint"):
        WamPolicy(make_model(), cameras=("side", "top"), future_stop=0.9)
