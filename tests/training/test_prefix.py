"""Training gives some chunks their first actions clean, and asks nothing of these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.model.conftest import make_batch, make_model
from tests.training.conftest import toy_config, write_toy
from wam.contracts import ActionSpace, Batch, Observation, WamError
from wam.control.continuation import Continuation
from wam.control.wam_policy import WamPolicy, load_policy
from wam.model.config import ConditionalConfig, PrefixConfig
from wam.model.wam import WorldActionModel
from wam.training.config import OptimizerConfig
from wam.training.objective import joint_losses
from wam.training.prefixes import draw_prefixes, pushed_aside, require_displacements
from wam.training.state import newest_checkpoint
from wam.training.trainer import train

SPACE = ActionSpace(
    names=tuple("xyzg"), units=("m",) * 4, low=(-1,) * 4, high=(1,) * 4, kind="delta", rate_hz=10.0, gripper="g"
)


def losses(model: WorldActionModel, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    return joint_losses(model, batch, generator=torch.Generator().manual_seed(seed))


def passes(model: WorldActionModel, monkeypatch: pytest.MonkeyPatch, *, spoil: float = 0.0) -> list[dict[str, Any]]:
    """What the network's passes are given and say from now on. spoil: added to what is said of settled actions."""
    found: list[dict[str, Any]] = []

    def denoise(context: Any, signals: Any, clocks: Any, *, settled: Tensor | None = None, drawn: Any = None) -> Any:
        said = own(context, signals, clocks, settled=settled, drawn=drawn)
        if settled is not None:
            said["action"] = said["action"] + spoil * settled[..., None]
            if said["action"].requires_grad:
                said["action"].retain_grad()
        found.append({"signals": signals, "clocks": clocks, "settled": settled, "said": said})
        return said

    own = model.network.denoise
    monkeypatch.setattr(model.network, "denoise", denoise)
    return found


@given(longest=st.integers(1, 12), share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_prefixes_are_as_long_and_as_many_as_was_asked(longest: int, share: float, seed: int) -> None:
    lengths = draw_prefixes(2000, share, longest, generator=torch.Generator().manual_seed(seed))
    assert lengths.min() >= 0
    assert lengths.max() <= longest
    assert abs((lengths > 0).float().mean() - share) < 0.06
    if share > 0.5:
        assert set(lengths[lengths > 0].tolist()) == set(range(1, longest + 1))


def test_nothing_is_asked_of_settled_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make_model(prefix=PrefixConfig(share=0.8), draws=2), make_batch(8)
    found = passes(model, monkeypatch)
    before = losses(model, batch)
    before["loss"].backward()
    assert len(found) == 2
    assert found[0]["settled"].any()
    for one in found:
        gradient, settled = one["said"]["action"].grad, one["settled"]
        assert (gradient[settled] == 0).all()
        asked = gradient.abs().sum((1, 2)) > 0
        assert asked.any()
        assert (gradient[asked].abs().sum(2)[~settled[asked]] > 0).all()
    monkeypatch.undo()
    passes(model, monkeypatch, spoil=100.0)
    after = losses(model, batch)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_settled_actions_are_clean_and_the_rest_is_as_noisy_as_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = make_model(prefix=PrefixConfig(share=0.8)), make_model()
    batch = make_batch(8)
    with_prefix, without = passes(model, monkeypatch), passes(plain, monkeypatch)
    losses(model, batch)
    losses(plain, batch)
    (one, *_), (other, *_) = with_prefix, without  # of the policy, which runs first
    settled, clean = one["settled"], model.normalized(batch).action
    assert clean is not None
    clean = clean.repeat_interleave(2, 0)
    assert torch.equal(one["clocks"]["action"], other["clocks"]["action"])
    assert torch.equal(one["signals"]["action"][settled], clean[settled])
    assert torch.equal(one["signals"]["action"][~settled], other["signals"]["action"][~settled])
    assert other["settled"] is None


def test_only_conditionals_that_act_are_given_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the rows with video, those of inverse and forward dynamics are not."""
    rows = {
        "forward_dynamics": {"action": "clean", "future": "draw"},
        "inverse_dynamics": {"action": "draw", "future": "clean"},
        "joint": {"action": "draw", "future": "draw"},
    }
    conditionals = [ConditionalConfig(name=name, weight=1.0, clocks=clocks) for name, clocks in rows.items()]
    model = make_model(prefix=PrefixConfig(share=1.0), conditionals=conditionals)
    found = passes(model, monkeypatch)
    losses(model, make_batch(32))
    (one,) = found
    given_clean = one["clocks"]["future"] == 0
    settled = one["settled"].any(1)
    assert not settled[given_clean].any()
    assert settled.any()
    assert not settled.all()


def test_what_an_episode_never_did_is_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(8)
    real = torch.arange(8) < torch.tensor([0, 1, 2, 3, 8, 8, 8, 8])[:, None]
    model = make_model(prefix=PrefixConfig(share=1.0, longest=7))
    found = passes(model, monkeypatch)
    total = losses(model, batch.replace(action_mask=real))["loss"]
    assert torch.isfinite(total)
    settled = found[0]["settled"]
    assert not (settled & ~real.repeat_interleave(2, 0)).any()
    assert settled[8:].any(1).all()


def test_without_prefixes_nothing_is_as_much_as_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, states, found = make_batch(6), [], []
    for prefix in (PrefixConfig(), PrefixConfig(share=0.0, longest=5, conditionals=[])):
        generator = torch.Generator().manual_seed(3)
        model = make_model(prefix=prefix)
        told = passes(model, monkeypatch)
        with torch.no_grad():
            found.append({name: float(v) for name, v in joint_losses(model, batch, generator=generator).items()})
        states.append(generator.get_state())
        assert all(one["settled"] is None for one in told)
    assert found[0] == found[1]
    assert torch.equal(states[0], states[1])


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes in which a push lasts, so that an action tells all that follow, and no picture does."""
    return write_toy(tmp_path_factory.mktemp("steady") / "data", episodes=24, held=100)


def trained(data: Path, output: Path, prefix: PrefixConfig) -> WamPolicy:
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup=5)
    config = toy_config(data, output, steps=120, batch_size=32, save_every=1000, ema=0.9, optimizer=optimizer)
    config.model.prefix = prefix
    del config.model.streams["future"]
    config.model.conditionals = [ConditionalConfig(name="policy", weight=1.0, clocks={"action": "draw"})]
    train(config)
    return load_policy(newest_checkpoint(output))


def test_the_drawn_rest_goes_on_as_the_prefix_began_and_without_training_it_does_not(
    steady: Path, tmp_path: Path
) -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[7:10, 7:10] = 255
    seen = Observation(
        images={"a": picture, "b": picture}, state=np.array([8, 8], np.float32), instruction="push the square"
    )
    pushes = np.array([[0.7, -0.7], [-0.7, 0.7], [0.5, 0.5], [-0.5, -0.5]], np.float32)
    error = {}
    for name, prefix in (("with", PrefixConfig(share=0.7)), ("without", PrefixConfig())):
        policy = trained(steady, tmp_path / name, prefix)
        left = [Continuation(actions=np.tile(push, (5, 1)), delay=3, method="prefix") for push in pushes]
        chunks = policy.continue_from([seen] * 4, left)
        np.testing.assert_allclose(chunks[:, :3], np.tile(pushes[:, None], (1, 3, 1)), atol=1e-5)
        error[name] = np.abs(chunks[:, 3:] - pushes[:, None]).mean()
    assert error["with"] < 0.25
    assert error["without"] > 2 * error["with"]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), noise=st.floats(0.1, 2.0), longest=st.integers(1, 6))
def test_a_push_is_made_up_for_as_far_as_limits_let_it(seed: int, noise: float, longest: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    chunk = torch.rand(8, 60, 4, generator=generator) * 0.2 - 0.1
    settled = torch.arange(60) < draw_prefixes(8, 1.0, longest, generator=generator)[:, None]
    pushed = pushed_aside(chunk, settled, SPACE, noise=noise, generator=generator)
    assert not torch.equal(pushed[settled][:, :3], chunk[settled][:, :3])
    assert torch.equal(pushed[..., 3], chunk[..., 3]), "the gripper is left alone"
    assert pushed.abs().max() <= 1
    torch.testing.assert_close(pushed[..., :3].sum(1), chunk[..., :3].sum(1), atol=2e-3, rtol=0)
    free = (pushed - chunk)[..., :3].abs().masked_fill(settled[..., None], 0)
    first = settled.sum(1)
    assert all(
        free[row, k].sum() >= free[row, k + 1].sum() - 1e-5 for row in range(8) for k in range(int(first[row]), 59)
    )


def test_what_limits_forbid_stays_undone() -> None:
    chunk = torch.ones(1, 10, 4)  # at its limit: nothing is left to catch up with
    settled = torch.arange(10)[None] < 4
    pushed = pushed_aside(chunk, settled, SPACE, noise=1.0, generator=torch.Generator().manual_seed(0))
    assert (pushed[:, :4, :3] <= 1).all()
    assert (pushed[:, :4, :3] < 1).any()
    assert torch.equal(pushed[:, 4:], chunk[:, 4:])


def test_only_displacements_can_be_pushed_aside() -> None:
    for space in (None, replace(SPACE, kind="absolute")):
        with pytest.raises(WamError, match="displacements"):
            require_displacements(space)
