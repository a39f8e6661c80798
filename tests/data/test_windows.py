"""A window holds the frames and actions around its present, and masks tell what is past the episode's end."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.toy_episodes import LENGTHS, episode_arrays, frame_numbers
from wam.contracts import WamError
from wam.data import windows
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec, resize

STORES: dict[str, EpisodeStore] = {}


@pytest.fixture(autouse=True, scope="module")
def _store(toy_root):
    STORES["toy"] = EpisodeStore(toy_root)


specs = st.builds(
    WindowSpec,
    history=st.integers(1, 4),
    history_stride=st.integers(1, 3),
    future=st.lists(st.integers(1, 40), max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    chunk=st.integers(0, 12),
    cameras=st.sampled_from([None, ("top",), ("top", "side"), ("side", "absent")]),
    image_size=st.sampled_from([64, None, 32]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=specs, data=st.data())
def test_a_window_is_what_its_episode_says_for_any_spec_and_place(spec, data):
    store = STORES["toy"]
    episodes = data.draw(st.lists(st.integers(0, len(LENGTHS) - 1), min_size=1, max_size=3, unique=True))
    dataset = WindowDataset(store, spec, episodes=episodes)
    assert len(dataset) == sum(LENGTHS[episode] for episode in episodes)
    index = data.draw(st.integers(0, len(dataset) - 1))
    found, (episode, present) = dataset.window(index), dataset.episode_of(index)
    seed, last = episode.index, episode.length - 1
    columns = episode_arrays(seed, episode.length)["columns"]

    for view, camera in enumerate(dataset.cameras):
        start = 1000 * seed + (500 if camera == "top" else 0)
        past = [max(present + back, 0) for back in spec.history_stride * np.arange(1 - spec.history, 1)]
        ahead = [min(present + offset, last) for offset in spec.future]
        if camera == "absent":
            assert not found["images"][view].any()
            assert not found["view_mask"][view]
            continue
        assert frame_numbers(found["images"][view]) == [start + frame for frame in past]
        if spec.future:
            assert frame_numbers(found["future"][view]) == [start + frame for frame in ahead]
    if spec.future:
        assert found["future_mask"].tolist() == [present + offset <= last for offset in spec.future]
    else:
        assert "future" not in found
    if spec.chunk:
        steps = present + np.arange(spec.chunk)
        assert np.array_equal(found["action"], columns["action"][np.minimum(steps, last)])
        assert found["action_mask"].tolist() == (steps <= last).tolist()
        assert found["action_mask"][0], "the present always has its action"
    else:
        assert "action" not in found
    assert np.array_equal(found["state"], columns["observation.state"][present])
    assert found["play"] == episode.play
    assert found["instruction"] == episode.task


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=specs, data=st.data())
def test_reading_from_video_gives_the_same_windows_as_the_cache(spec, data):
    cached, read = (WindowDataset(STORES["toy"], spec, cache=cache) for cache in ("memory", "none"))
    rows = data.draw(st.lists(st.integers(0, len(cached) - 1), min_size=1, max_size=5))
    one, other = cached.batch(rows), read.batch(rows)
    assert one.instruction == other.instruction
    assert one.tensors().keys() == other.tensors().keys()
    for name, tensor in one.tensors().items():
        assert tensor.equal(other.tensors()[name]), name


def test_a_batch_is_its_windows_stacked(toy):
    dataset = WindowDataset(toy, WindowSpec(history=2), embodiment=3)
    rows = [5, 0, len(dataset) - 1]
    batch = dataset.batch(rows)
    assert batch.images.shape == (3, 2, 2, 64, 64, 3)
    assert batch.embodiment is not None
    assert batch.embodiment.tolist() == [3, 3, 3]
    for place, row in enumerate(rows):
        window: dict[str, Any] = dataset.window(row)
        for name, tensor in batch.tensors().items():
            assert np.array_equal(tensor[place].numpy(), window[name]), name


def test_an_action_free_dataset_gives_windows_without_actions(toy):
    batch = WindowDataset(toy, WindowSpec(action="absent", state="absent")).batch([0, 1])
    assert batch.action is None
    assert batch.state is None
    assert batch.future is not None


@pytest.mark.parametrize(
    ("override", "sentences"),
    [
        ("always this", {"always this"}),
        ({"task 0": "do it", "play": ""}, {"do it", "", "task 1"}),
        (lambda episode: f"episode {episode.index}", {f"episode {index}" for index in range(len(LENGTHS))}),
    ],
)
def test_sentences_can_be_replaced(toy, override, sentences):
    dataset = WindowDataset(toy, WindowSpec(), instruction_override=override)
    assert set(dataset.batch(range(len(dataset))).instruction) == sentences


def test_resizing_averages_and_never_shifts():
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 96, 3), np.uint8)
    halved = frames.reshape(2, 32, 2, 48, 2, 3).mean((2, 4))
    assert np.abs(resize(frames, 32, 48) - halved).max() <= 1
    assert resize(frames, 64, 96) is frames


def test_a_cache_that_does_not_fit_in_memory_is_refused_before_decoding(toy, monkeypatch):
    monkeypatch.setattr(windows, "MEMORY_SHARE", 1e-9)
    with pytest.raises(WamError, match="cache='none'"):
        WindowDataset(toy, WindowSpec())


def test_what_cannot_be_is_refused_in_one_sentence(toy):
    for spec in ({"history": 0}, {"history_stride": 0}, {"chunk": -1}, {"future": (0,)}, {"cameras": ()}):
        with pytest.raises(WamError):
            WindowSpec(**spec)
    with pytest.raises(WamError, match="a camera among"):
        WindowDataset(toy, WindowSpec(cameras=("wrist",)))
    with pytest.raises(WamError, match="at least one episode"):
        WindowDataset(toy, WindowSpec(), episodes=[])
    with pytest.raises(WamError, match="cache memory or none"):
        WindowDataset(toy, WindowSpec(), cache="disk")
    with pytest.raises(WamError, match="windows from 0 to"):
        WindowDataset(toy, WindowSpec()).batch([10_000])


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_reading_thousands_of_windows_keeps_the_memory_flat(toy, cache):
    dataset, rng = WindowDataset(toy, WindowSpec(), cache=cache), np.random.default_rng(0)

    def read(batches: int) -> int:
        for _ in range(batches):
            dataset.batch(rng.integers(0, len(dataset), 16))
        gc.collect()
        return psutil.Process().memory_info().rss

    before = read(20)
    assert read(80) - before < 8 * 2**20
