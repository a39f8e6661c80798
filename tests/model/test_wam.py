"""The world-action model: what each conditional may know, and that caching, dropping and seeding change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.model.conftest import make_batch, make_model
from wam.contracts import Batch, WamError
from wam.diffusion.clocks import ClockConfig, sampling_clocks
from wam.model.config import StreamConfig, default_streams

METHODS = ("policy", "imagine", "forward_dynamics", "inverse_dynamics", "joint")


@pytest.mark.parametrize("method", METHODS)
def test_every_conditional_gives_what_it_is_asked_for(method: str, batch: Batch) -> None:
    sample = getattr(make_model(), method)(batch, steps=2)
    wants_future = method not in ("policy", "inverse_dynamics")
    wants_action = method in ("policy", "inverse_dynamics", "joint")
    assert (sample.future is not None) == wants_future
    assert (sample.action is not None) == wants_action
    if sample.future is not None:
        assert sample.future.shape == batch.future.shape  # type: ignore[union-attr]
        assert 0 <= sample.future.min() <= sample.future.max() <= 1
    if sample.action is not None:
        assert sample.action.shape == batch.action.shape  # type: ignore[union-attr]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_cached_denoising_equals_uncached(method: str, guidance: float, batch: Batch) -> None:
    model = make_model()
    fast = getattr(model, method)(batch, steps=3, guidance=guidance)
    slow = getattr(model, method)(batch, steps=3, guidance=guidance, cached=False)
    for name in ("future", "action"):
        if getattr(fast, name) is not None:
            assert torch.equal(getattr(fast, name), getattr(slow, name))


def test_what_is_wanted_never_depends_on_the_answer_in_the_batch(batch: Batch) -> None:
    model, other = make_model(), make_batch(seed=9)
    swapped = batch.replace(future=other.future, action=other.action)
    for method in ("policy", "imagine", "joint"):
        one, two = (getattr(model, method)(b, steps=2) for b in (batch, swapped))
        for name in ("future", "action"):
            if getattr(one, name) is not None:
                assert torch.equal(getattr(one, name), getattr(two, name))


def test_the_action_changes_the_future_and_the_future_changes_the_inverse(batch: Batch) -> None:
    model, other = make_model(), make_batch(seed=9)
    moved = model.forward_dynamics(batch.replace(action=other.action)).future
    assert not torch.equal(moved, model.forward_dynamics(batch).future)
    read = model.inverse_dynamics(batch.replace(future=other.future)).action
    assert not torch.equal(read, model.inverse_dynamics(batch).action)


def gradient_of_action_by_future(visibility: str, batch: Batch) -> torch.Tensor:
    model = make_model(visibility=visibility)
    network = model.network
    context = network.context(model.normalized(batch))
    future = network.encode_frames(batch.future).requires_grad_()  # type: ignore[arg-type]
    clocks = {s: torch.full((batch.size,), 0.5) for s in ("future", "action")}
    out = network.denoise(context, {"future": future, "action": batch.action}, clocks)  # type: ignore[dict-item]
    (gradient,) = torch.autograd.grad(out["action"].sum(), future, allow_unused=True)
    return torch.zeros(()) if gradient is None else gradient.abs().sum()


def test_action_never_sees_the_future_under_first_frame(batch: Batch) -> None:
    assert gradient_of_action_by_future("first-frame", batch) == 0
    assert gradient_of_action_by_future("joint", batch) > 0


def test_under_first_frame_dropping_the_future_leaves_the_action_as_it_was(batch: Batch) -> None:
    model = make_model(visibility="first-frame")
    torch.testing.assert_close(model.policy(batch).action, model.joint(batch).action)


def test_an_action_blind_model_answers_to_no_action(batch: Batch) -> None:
    model, other = make_model(visibility="action-blind"), make_batch(seed=9)
    moved = model.forward_dynamics(batch.replace(action=other.action)).future
    assert torch.equal(moved, model.forward_dynamics(batch).future)


def test_a_seed_repeats_and_another_differs(batch: Batch) -> None:
    model = make_model()
    assert torch.equal(model.joint(batch, seed=1).action, model.joint(batch, seed=1).action)
    assert not torch.equal(model.joint(batch, seed=1).action, model.joint(batch, seed=2).action)


def test_a_window_samples_alike_whatever_sentences_share_its_batch(batch: Batch) -> None:
    model = make_model()
    longer = batch.replace(instruction=(batch.instruction[0], "a much longer sentence than the others are", "x"))
    one, two = (model.network.context(model.normalized(b)) for b in (batch, longer))
    for (k, v), (k2, v2) in zip(one.caches["observation"].layers, two.caches["observation"].layers, strict=True):
        torch.testing.assert_close(k[0], k2[0])
        torch.testing.assert_close(v[0], v2[0])


def test_language_and_state_reach_the_action(batch: Batch) -> None:
    model = make_model()
    plain = model.policy(batch).action
    assert not torch.equal(model.policy(batch.replace(instruction=("turn left",) * 3)).action, plain)
    assert not torch.equal(model.policy(batch.replace(state=batch.state + 1)).action, plain)  # type: ignore[operator]
    assert model.policy(batch.without("state")).action.shape == plain.shape


def test_decoupled_clocks_may_leave_the_future_noisy(batch: Batch) -> None:
    clocks = {"future": torch.tensor([1.0, 0.9, 0.8]), "action": torch.tensor([1.0, 0.5, 0.0])}
    sample = make_model().joint(batch, clocks=clocks)
    assert sample.clocks == {"future": pytest.approx(0.8), "action": 0.0}


@pytest.mark.parametrize("steps", [1, 2])
def test_a_future_that_stops_early_leaves_the_action_to_come_clean(batch: Batch, steps: int) -> None:
    """In one step the action is read beside pure noise either way; in more it is read beside a noisier future."""
    model, points = make_model(), []
    whole, stopped = (model.joint(batch, steps=steps, future_stop=stop) for stop in (0.0, 0.9))
    assert whole.clocks == {"future": 0.0, "action": 0.0}
    assert stopped.clocks == {"future": pytest.approx(0.9), "action": 0.0}
    assert torch.equal(whole.action, stopped.action) == (steps == 1)  # type: ignore[arg-type]
    model.joint(batch, steps=steps, future_stop=1.0, path=points)
    assert torch.equal(points[0]["future"], points[-1]["future"])
    assert not torch.equal(points[0]["action"], points[-1]["action"])


@torch.no_grad()
def test_steps_are_laid_by_the_sampling_shift(batch: Batch) -> None:
    """A shift given in the config equals clocks given by hand, and 0 falls back to the shift of training."""
    laid = sampling_clocks(3, shift=5.0)
    assert laid[1] > 0.85, "even steps would put the second at two thirds"
    for clock in (ClockConfig(sampling_shift=5.0), ClockConfig(shift=5.0), ClockConfig(shift=2.0, sampling_shift=5.0)):
        model = make_model()
        model.config.streams["future"].clock = clock
        found = model.imagine(batch, steps=3).future
        torch.testing.assert_close(found, model.imagine(batch, clocks={"future": laid}).future)


def test_a_patch_stem_serves_too(batch: Batch) -> None:
    model = make_model()
    streams = model.config.streams
    for name in ("observation", "future"):
        streams[name] = StreamConfig(kind="video", stem="patch", grid=4, tubelet=streams[name].tubelet, predicts="x0")
    assert make_model(streams=streams).joint(batch).future.shape == batch.future.shape  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.zeros(3, 2, 1, 8, 8, 3, dtype=torch.uint8)}, "16 x 16"),
        ({"images": torch.zeros(3, 1, 1, 16, 16, 3, dtype=torch.uint8)}, "2 views"),
        ({"state": torch.zeros(3, 9)}, "state of 4"),
    ],
)
def test_wrong_shapes_say_expected_and_got(change: dict[str, torch.Tensor], words: str, batch: Batch) -> None:
    with pytest.raises(WamError, match=words):
        make_model().policy(batch.replace(**change))


def test_a_conditional_without_what_it_is_given_says_so(batch: Batch) -> None:
    with pytest.raises(WamError, match="a batch with action"):
        make_model().forward_dynamics(batch.without("action"))


def test_of_a_split_state_inverse_dynamics_and_policy_are_not_told_the_velocity(batch: Batch) -> None:
    model = make_model()
    model = make_model(streams=split(model.config.streams))
    assert batch.state is not None
    faster = batch.replace(state=batch.state + torch.tensor([0.0, 0.0, 1.0, 1.0]))
    for method in ("policy", "inverse_dynamics"):
        torch.testing.assert_close(getattr(model, method)(faster).action, getattr(model, method)(batch).action)
    for method in ("forward_dynamics", "imagine"):
        assert not torch.equal(getattr(model, method)(faster).future, getattr(model, method)(batch).future)
    elsewhere = batch.replace(state=batch.state + torch.tensor([1.0, 1.0, 0.0, 0.0]))
    for method in ("policy", "inverse_dynamics"):
        assert not torch.equal(getattr(model, method)(elsewhere).action, getattr(model, method)(batch).action)


def test_a_vector_that_no_stream_sees_has_a_stem_and_no_expert() -> None:
    streams = split(default_streams())
    assert set(make_model(streams=streams).network.transformer.experts) == set(streams) - {"velocity"}
    seen = {"extends": "joint", "sees": {"future": {"velocity": True, "future": True}}}
    assert set(make_model(streams=streams, visibility=seen).network.transformer.experts) == set(streams)


def split(streams: dict[str, StreamConfig]) -> dict[str, StreamConfig]:
    own = {"state": [0, 1], "velocity": [2, 3]}
    return {s: replace(stream, columns=own.get(s, [])) for s, stream in streams.items()}


def test_columns_that_a_state_does_not_have_are_refused() -> None:
    with pytest.raises(WamError, match="columns of a state of 4 numbers"):
        make_model(streams={**default_streams(), "velocity": StreamConfig(kind="vector", columns=[4])})


def test_a_samples_path_begins_at_its_noise_and_ends_at_the_sample(batch: Batch) -> None:
    model, path = make_model(), []
    model.normalizer("action").fit([0.5] * 4, [2.0] * 4)
    chunk = model.policy(batch, steps=3, seed=4, path=path).action
    assert len(path) == 4
    torch.testing.assert_close(model.normalizer("action").restore(path[-1]["action"]), chunk)
    again = model.policy(batch, steps=5, seed=4, path=(other := [])).action
    assert torch.equal(other[0]["action"], path[0]["action"])
    assert not torch.equal(again, chunk)
