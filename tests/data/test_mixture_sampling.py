"""Draws are a pure function of seed and place: the same for any number of ranks, resumable, fair and complete."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.toy_episodes import write_toy
from wam.contracts import WamError
from wam.data.loader import BatchLoader
from wam.data.mixture import Mixture
from wam.data.sampler import BLOCK, ResumableSampler
from wam.data.splits import split_episodes, task_of
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec


@dataclass
class Parts:
    sizes: list[int]
    weights: list[float]


PARTS = Parts([50, 7, 1000], [1.0, 0.5, 3.0])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), ranks=st.sampled_from([1, 2, 4]), steps=st.integers(1, 5))
def test_one_two_and_four_ranks_see_the_same_global_order(seed, ranks, steps):
    alone = ResumableSampler(PARTS, seed=seed)
    team = [ResumableSampler(PARTS, seed=seed, rank=rank, ranks=ranks) for rank in range(ranks)]
    for _ in range(steps):
        shares = [sampler.take(8) for sampler in team]
        assert np.array_equal(np.concatenate(shares), alone.take(8))


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 3 * BLOCK), count=st.integers(0, 300), cut=st.integers(0, 300))
def test_a_draw_depends_on_its_place_alone(start, count, cut):
    cut = min(cut, count)
    whole = ResumableSampler(PARTS, seed=3).at(start, count)
    parts = ResumableSampler(PARTS, seed=3)
    assert np.array_equal(whole, np.concatenate([parts.at(start, cut), parts.at(start + cut, count - cut)]))


def test_every_window_comes_once_before_any_comes_again_and_epochs_differ():
    sampler = ResumableSampler(Parts([20_000], [1.0]), seed=0)
    first, second = sampler.take(20_000)[:, 1], sampler.take(20_000)[:, 1]
    assert sorted(first) == sorted(second) == list(range(20_000))
    assert not np.array_equal(first, second)
    small = ResumableSampler(PARTS, seed=1).at(0, 4 * BLOCK)
    for source, size in enumerate(PARTS.sizes):
        drawn = small[small[:, 0] == source, 1]
        for epoch in range(len(drawn) // size):
            assert sorted(drawn[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_shares_follow_the_weights_not_the_sizes():
    drawn = ResumableSampler(PARTS, seed=0).at(0, BLOCK)[:, 0]
    shares = np.bincount(drawn) / BLOCK
    assert np.allclose(shares, np.array(PARTS.weights) / sum(PARTS.weights), atol=1.5 / BLOCK)
    early = np.bincount(drawn[:1000], minlength=3) / 1000
    assert np.allclose(early, shares, atol=0.06), "no dataset comes in one lump"
    rare = ResumableSampler(Parts([5, 5], [1e-9, 1.0])).at(0, BLOCK)
    assert (rare[:, 0] == 0).sum() == 1


def test_other_seeds_give_other_orders():
    assert not np.array_equal(ResumableSampler(PARTS, seed=0).at(0, 64), ResumableSampler(PARTS, seed=1).at(0, 64))


def test_a_state_only_fits_the_data_and_seed_it_was_saved_with():
    sampler = ResumableSampler(PARTS, seed=5)
    sampler.take(24)
    state = json.loads(json.dumps(sampler.state_dict()))
    again = ResumableSampler(PARTS, seed=5, rank=1, ranks=2)
    again.load_state_dict(state)
    assert np.array_equal(again.take(8), sampler.take(8)[4:])
    for other in (ResumableSampler(PARTS, seed=6), ResumableSampler(Parts([50, 8, 1000], [1, 0.5, 3]), seed=5)):
        with pytest.raises(WamError, match="same data, weights and seed"):
            other.load_state_dict(state)
    with pytest.raises(WamError, match="2 ranks divide"):
        again.take(7)
    with pytest.raises(WamError, match="a rank from 0 to 1"):
        ResumableSampler(PARTS, rank=2, ranks=2)


@pytest.fixture(scope="module")
def mixture(toy_root):
    store = EpisodeStore(toy_root)
    train, held_out = split_episodes(store, held_out_share=0.3, seed=0)
    spec = WindowSpec(history=2, cameras=("side", "top"))
    free = WindowSpec(history=2, cameras=("side", "absent"), action="absent", state="absent")
    return Mixture([
        (WindowDataset(store, spec, episodes=train), 2.0, "labelled"),
        (WindowDataset(store, free, episodes=held_out), 1.0, "video"),
    ])  # fmt: skip


def same(one, other):
    return one.instruction == other.instruction and all(
        tensor.equal(other.tensors()[name]) for name, tensor in one.tensors().items()
    )


def test_a_mixed_batch_keeps_the_order_and_masks_what_a_dataset_lacks(mixture):
    draws = ResumableSampler(mixture, seed=2).at(0, 40)
    batch = mixture.batch(draws)
    assert {0, 1} == set(batch.source.tolist())
    for place, (source, window) in enumerate(draws):
        alone = mixture.datasets[source].batch([window])
        assert batch.images[place].equal(alone.images[0])
        assert batch.instruction[place] == alone.instruction[0]
        assert batch.source[place] == source
        assert batch.window[place] == window
        if source == 0:
            assert batch.action[place].equal(alone.action[0])
            assert batch.action_mask[place].equal(alone.action_mask[0])
            assert batch.view_mask[place].all()
        else:
            assert not batch.action_mask[place].any()
            assert not batch.action[place].any()
            assert batch.view_mask[place].tolist() == [True, False]


def test_every_batch_has_the_same_fields_whichever_datasets_it_drew_from(mixture):
    batches = [mixture.batch(np.array(draws)) for draws in ([[0, 0], [0, 1]], [[1, 0], [1, 1]], [[0, 0], [1, 0]])]
    shapes = [{name: tensor.shape for name, tensor in batch.tensors().items()} for batch in batches]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_loader_gives_the_sampler_s_batches_in_order_whatever_its_threads(mixture, workers):
    loader = BatchLoader(mixture, ResumableSampler(mixture, seed=4), batch_size=6, workers=workers, prefetch=5, steps=9)
    plain = ResumableSampler(mixture, seed=4)
    found = list(loader)
    assert len(found) == 9
    assert all(same(batch, mixture.batch(plain.take(6))) for batch in found)
    assert loader.batches == 9
    assert loader.wait_seconds > 0
    assert 0 < loader.wait_share <= 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_resumed_in_mid_epoch_equals_uninterrupted(mixture, workers, stop):
    whole = list(BatchLoader(mixture, ResumableSampler(mixture, seed=4), batch_size=4, steps=10))
    first = BatchLoader(mixture, ResumableSampler(mixture, seed=4), batch_size=4, workers=workers, prefetch=6)
    seen = list(itertools.islice(first, stop))
    state = json.loads(json.dumps(first.state_dict()))
    second = BatchLoader(mixture, ResumableSampler(mixture, seed=4), batch_size=4, workers=workers, steps=10 - stop)
    second.load_state_dict(state)
    seen += list(second)
    assert all(same(one, other) for one, other in zip(seen, whole, strict=True))


def test_an_error_while_making_a_batch_reaches_the_consumer(mixture, monkeypatch):
    def fail(draws):
        raise WamError("expected a readable video, got none; restore it")

    loader = BatchLoader(mixture, ResumableSampler(mixture), batch_size=4)
    monkeypatch.setattr(mixture, "batch", fail)
    with pytest.raises(WamError, match="readable video"):
        next(iter(loader))


def test_datasets_that_do_not_fit_together_are_refused(toy):
    one = WindowDataset(toy, WindowSpec(), episodes=[0])
    for parts in (
        [(one, 0.0, "a")],
        [],
        [(one, 1.0, "a"), (one, 1.0, "a")],
        [(one, 1.0, "a"), (WindowDataset(toy, WindowSpec(chunk=4), episodes=[0]), 1.0, "b")],
        [(one, 1.0, "a"), (WindowDataset(toy, WindowSpec(image_size=32), episodes=[0]), 1.0, "b")],
        [(one, 1.0, "a"), (WindowDataset(toy, WindowSpec(cameras=("top",)), episodes=[0]), 1.0, "b")],
    ):
        with pytest.raises(WamError, match=r"^expected "):
            Mixture(parts)


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0, 0.9), seed=st.integers(0, 1000))
def test_a_split_is_whole_disjoint_repeatable_and_holds_every_task_on_both_sides(share, seed):
    store = STORE["many"]
    train, held_out = split_episodes(store, held_out_share=share, seed=seed)
    assert sorted(train + held_out) == list(range(len(store)))
    assert (train, held_out) == split_episodes(store, held_out_share=share, seed=seed)
    tasks = {
        side: {task_of(store.episodes[place]) for place in places} for side, places in (("t", train), ("h", held_out))
    }
    assert tasks["t"] == {"toy/0", "toy/1", "toy/0 (play)", "toy/1 (play)"}
    assert tasks["h"] == (tasks["t"] if share else set())
    numbers: dict[int, set[tuple[int, ...]]] = {}
    for task in tasks["t"]:
        own = [place for place in range(len(store)) if task_of(store.episodes[place]) == task]
        numbers.setdefault(len(own), set()).add(tuple(own.index(place) for place in held_out if place in own))
    assert all(len(found) == 1 for found in numbers.values())  # the same numbers of each task with as many episodes


STORE: dict[str, EpisodeStore] = {}


@pytest.fixture(autouse=True, scope="module")
def _store(tmp_path_factory):
    STORE["many"] = EpisodeStore(write_toy(tmp_path_factory.mktemp("many") / "d", lengths=(3,) * 18))
