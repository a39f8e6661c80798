"""Rollouts: the rolling cache changes nothing but the cost, the present looks the same at any time, corrections count."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.model.conftest import make_batch, make_model
from wam.contracts import WamError
from wam.model.joint import KeysValues
from wam.model.network import JointNetwork
from wam.model.rollout import Rollout, rollout
from wam.model.rope import chunk_positions, grid_positions, rotary_table

TIMES = (0, 4, 8, 12, 16)


def frames_of(count: int, *, seed: int = 3) -> torch.Tensor:
    """(B, V, T, H, W, C) in [0, 1]."""
    return torch.rand(3, 2, count, 16, 16, 3, generator=torch.Generator().manual_seed(seed))


def recomputed(
    network: JointNetwork, sentences: tuple[str, ...], frames: torch.Tensor, window: int
) -> list[KeysValues]:
    """Keys and values of all frames, layer by layer, from one long sequence under one dense sliding-window mask.

    Frames come one at a time. Each has its own copy of the sentence, at its own time, which no other frame reads.
    """
    size, count = len(frames), frames.shape[2]
    grid = network.config.streams["observation"].grid
    h_text, summary = network.stems["text"](sentences)
    seen = network._condition("observation", {"text": summary}, size)
    h_seen, _ = network.videos["observation"].embed(network.encode_frames(frames), seen)
    views = h_seen.shape[2]
    words, patches = h_text.shape[1], views * grid * grid
    times = torch.tensor(TIMES)
    h = {"text": h_text.repeat(1, count, 1), "observation": h_seen.flatten(1, 3)}
    condition = {
        "text": network.stream_bias["text"].expand(size, 1, -1),
        "observation": seen,
    }
    head_dim = network.config.head_dim
    rotary = {
        "text": rotary_table(chunk_positions(times.repeat_interleave(words)), head_dim),
        "observation": rotary_table(grid_positions(times, grid, views), head_dim),
    }
    frame_of = {s: torch.arange(count).repeat_interleave(n) for s, n in (("text", words), ("observation", patches))}
    told = frame_of["text"][:, None] == frame_of["text"]
    heard = frame_of["observation"][:, None] == frame_of["text"]
    age = frame_of["observation"][:, None] - frame_of["observation"]
    masks = {"text": told, "observation": torch.cat([heard, (age >= 0) & (age < window)], dim=1)}
    layers = []
    for layer in range(network.config.depth):
        expert = {s: network.transformer.experts[s][layer] for s in h}  # type: ignore[index]
        modulation = {s: expert[s].modulation(F.silu(condition[s])) for s in h}
        parts = {s: expert[s].qkv(h[s], modulation[s], rotary[s]) for s in h}
        keys = {"text": parts["text"][1], "observation": torch.cat([parts[s][1] for s in h], 2)}
        values = {"text": parts["text"][2], "observation": torch.cat([parts[s][2] for s in h], 2)}
        for s in h:
            scores = (parts[s][0] @ keys[s].transpose(-1, -2)) / head_dim**0.5
            attended = scores.masked_fill(~masks[s], -torch.inf).softmax(-1) @ values[s]
            h[s] = expert[s].update(h[s], attended, modulation[s])
        layers.append((parts["observation"][1], parts["observation"][2]))
    return layers


@pytest.mark.parametrize("window", [1, 2, 3, 5])
@torch.no_grad()
def test_a_rolling_cache_equals_recomputing_every_frame_under_a_sliding_window(window: int) -> None:
    model = make_model(visibility="causal")
    network, frames = model.network, frames_of(len(TIMES))
    batch = make_batch().replace(images=frames[:, :, :1])
    context = network.context(model.normalized(batch))
    for i, time in enumerate(TIMES[1:], start=1):
        context = network.extend_context(context, frames[:, :, i : i + 1], [time], window=window)
    kept = min(window, len(TIMES)) * network.config.streams["observation"].grid ** 2
    slow = recomputed(network, batch.instruction, frames, window)
    assert context.time == TIMES[-1]
    for (k, v), (slow_k, slow_v) in zip(context.caches["observation"].layers, slow, strict=True):
        torch.testing.assert_close(k, slow_k[:, :, -kept:], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(v, slow_v[:, :, -kept:], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_frames_that_come_together_equal_frames_that_come_one_by_one_when_nothing_is_told() -> None:
    model = make_model(visibility={"extends": "causal", "sees": {"observation": {"observation": "yes"}}})
    frames = frames_of(5)
    start = model.network.context(make_batch().replace(images=frames[:, :, :1]))
    together = model.network.extend_context(start, frames[:, :, 1:], TIMES[1:], window=3)
    apart = start
    for i, time in enumerate(TIMES[1:], start=1):
        apart = model.network.extend_context(apart, frames[:, :, i : i + 1], [time], window=3)
    for (k, v), (k2, v2) in zip(together.caches["observation"].layers, apart.caches["observation"].layers, strict=True):
        torch.testing.assert_close(k, k2, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(v, v2, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_present_looks_the_same_at_any_time() -> None:
    model, batch = make_model(visibility="causal"), make_batch()
    seen = frames_of(1)
    first = model.context(batch)
    state = make_batch(seed=6).state
    later = model.network.extend_context(first, seen, [4000], window=1, state=state)
    anew = model.context(batch.replace(images=seen, state=state))
    one, two = (model.joint(batch, context=context, steps=2) for context in (later, anew))
    torch.testing.assert_close(one.future, two.future, atol=2e-3, rtol=0)  # angles of a float32 time of 4000
    torch.testing.assert_close(one.action, two.action, atol=2e-3, rtol=0)


@pytest.mark.parametrize("visibility", ["joint", "causal"])
def test_a_rollout_imagines_every_chunk_from_the_one_before(visibility: str) -> None:
    model, batch = make_model(visibility=visibility), make_batch()
    actions = torch.randn(3, 24, 4, generator=torch.Generator().manual_seed(5))
    whole = rollout(model, batch, actions, steps=2)
    assert whole.shape == (3, 2, 6, 16, 16, 3)
    assert 0 <= whole.min() <= whole.max() <= 1
    first = model.forward_dynamics(batch.replace(action=actions[:, :8]), steps=2).future
    assert first is not None
    assert torch.equal(whole[:, :, :2], first)
    changed = actions.clone()
    changed[:, 8:16] += 1
    other = rollout(model, batch, changed, steps=2)
    assert torch.equal(other[:, :, :2], whole[:, :, :2])
    assert not torch.allclose(other[:, :, 4:], whole[:, :, 4:])


@pytest.mark.parametrize("visibility", ["joint", "causal"])
def test_a_corrected_rollout_goes_on_from_what_really_came(visibility: str) -> None:
    model, batch = make_model(visibility=visibility), make_batch()
    seen = batch.future
    assert seen is not None
    here, there = (
        Rollout(model, b, steps=2) for b in (batch, make_batch(seed=8).replace(instruction=batch.instruction))
    )
    for world in (here, there):
        world.imagine()
        world.correct(seen, state=batch.state)
    assert here.time == 8
    torch.testing.assert_close(here.imagine(), there.imagine())  # window 1: the older, different frame is forgotten
    here.correct(seen, state=make_batch(seed=6).state)
    there.correct(seen, state=batch.state)
    assert not torch.allclose(here.imagine(), there.imagine())


def test_one_imagined_frame_back_both_ways_imagine_alike() -> None:
    """With a window of one frame, the cache holds what re-encoding the last imagined frame gives."""
    model, batch = make_model(visibility="causal"), make_batch()
    anew = Rollout(model, batch, steps=2)
    anew.cached = False
    cached = Rollout(model, batch, steps=2)
    for _ in range(3):
        torch.testing.assert_close(cached.imagine(), anew.imagine(), atol=1e-3, rtol=0)


def test_a_longer_window_remembers_more() -> None:
    model = make_model(visibility="causal", history=4)
    one, other = make_batch(history=2), make_batch(history=2, seed=4)
    other = other.replace(images=torch.cat([other.images[:, :, :1], one.images[:, :, 1:]], dim=2))
    other = other.replace(state=one.state, instruction=one.instruction)
    assert not torch.allclose(rollout(model, one, chunks=2, steps=1), rollout(model, other, chunks=2, steps=1))
    worlds = [Rollout(model, batch, steps=1, window=2) for batch in (one, other)]
    for world in worlds:
        world.imagine()
        world.correct(one.future)  # type: ignore[arg-type]
    same, again = (world._advance(world._newest, None).caches["observation"] for world in worlds)  # type: ignore[arg-type]
    assert same.frames == again.frames == 2
    torch.testing.assert_close(same.layers[0], again.layers[0])


def test_every_part_of_a_rollout_that_does_not_fit_says_so() -> None:
    model, batch = make_model(), make_batch()
    with pytest.raises(WamError, match="length 8 \\+ 8 n"):
        rollout(model, batch, torch.zeros(3, 12, 4))
    with pytest.raises(WamError, match="number of chunks"):
        rollout(model, batch)
    with pytest.raises(WamError, match="window of at least the 2 frames"):
        Rollout(model, make_batch(history=2), window=1)
    with pytest.raises(WamError, match="imagined before"):
        Rollout(model, batch).correct(batch.future)  # type: ignore[arg-type]
    with pytest.raises(WamError, match="read only earlier frames"):
        model.network.extend_context(model.context(batch), frames_of(1), [4], window=1)


def test_a_seed_repeats_a_rollout_and_another_differs() -> None:
    model, batch = make_model(visibility="causal"), make_batch()
    one, again, other = (rollout(model, batch, chunks=2, steps=1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_progress_counts_chunks() -> None:
    told: list[tuple[int, int]] = []
    rollout(make_model(), make_batch(), chunks=2, steps=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
