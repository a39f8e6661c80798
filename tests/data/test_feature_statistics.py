"""Statistics are those of the numbers, and no video is decoded for them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.data.toy_episodes import LENGTHS, episode_arrays
from wam.contracts import WamError
from wam.data import decoders, statistics
from wam.data.statistics import QUANTILES, FeatureStatistics, Statistics, compute_statistics, merge
from wam.data.store import EpisodeStore

values = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.floats(-1e3, 1e3, allow_subnormal=False)
)


def test_a_store_s_statistics_are_exact_quantiles_included_without_decoding(toy, monkeypatch):
    monkeypatch.setattr(decoders, "open_reader", lambda *_, **__: pytest.fail("a frame was decoded"))
    found = compute_statistics(toy)
    for name in ("action", "observation.state", "sim.state", "reward"):
        everything = np.concatenate([episode_arrays(i, n)["columns"][name] for i, n in enumerate(LENGTHS)])
        everything = everything.reshape(len(everything), -1).astype(np.float64)
        assert found[name].count == sum(LENGTHS)
        assert np.allclose(found[name].mean, everything.mean(0))
        assert np.allclose(found[name].std, everything.std(0))
        for key, share in QUANTILES.items():
            assert np.allclose(getattr(found[name], key), np.quantile(everything, share, axis=0))
    assert set(found) == set(toy.statistics)
    assert json.dumps(found.to_json()) == json.dumps(toy.statistics.to_json()), "stats.json holds the same"


def test_image_statistics_are_those_of_the_pixels():
    frames = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    found, pixels = FeatureStatistics.of_images(frames), frames.reshape(-1, 3) / 255
    for name, wanted in {
        "min": pixels.min(0),
        "max": pixels.max(0),
        "mean": pixels.mean(0),
        "std": pixels.std(0),
    }.items():
        assert np.allclose(getattr(found, name).reshape(3), wanted)
    assert np.allclose(found.q50.reshape(3), np.quantile(pixels, 0.5, axis=0), atol=1 / 255)
    assert found.mean.shape == (3, 1, 1)


@settings(deadline=None)
@given(parts=st.lists(values, min_size=1, max_size=4))
def test_merging_is_exact_but_for_quantiles_which_stay_within_the_range(parts):
    width = parts[0].shape[1]
    parts = [np.resize(part, (len(part), width)) for part in parts]
    merged = merge(Statistics({"x": FeatureStatistics.of(part)}) for part in parts)["x"]
    whole = FeatureStatistics.of(np.concatenate(parts))
    assert merged.count == whole.count
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(getattr(merged, name), getattr(whole, name), atol=1e-6), name
    for name in QUANTILES:
        assert (getattr(merged, name) >= whole.min - 1e-9).all()
        assert (getattr(merged, name) <= whole.max + 1e-9).all()


def test_a_long_column_s_quantiles_are_thinned_and_everything_else_stays_exact(monkeypatch):
    monkeypatch.setattr(statistics, "EXACT_VALUES", 1000)
    numbers = np.random.default_rng(0).normal(size=(10_000, 1))
    found = FeatureStatistics.of(numbers)
    assert np.allclose(found.mean, numbers.mean())
    assert np.allclose(found.q50, np.quantile(numbers, 0.5), atol=0.1)


def test_statistics_survive_json_and_a_file_without_quantiles():
    found = Statistics({"a": FeatureStatistics.of(np.arange(12.0).reshape(6, 2))})
    again = Statistics.from_json(json.loads(json.dumps(found.to_json())))
    assert json.dumps(again.to_json()) == json.dumps(found.to_json())
    plain = {"a": {key: value for key, value in found.to_json()["a"].items() if not key.startswith("q")}}
    assert Statistics.from_json(plain)["a"].q99.tolist() == [10.0, 11.0]


def test_broken_statistics_are_one_sentence(tmp_path, toy):
    (tmp_path / "stats.json").write_text('{"action": {"mean": [0]}}')
    for path in (tmp_path / "stats.json", tmp_path / "absent.json"):
        with pytest.raises(WamError, match="wam data stats"):
            Statistics.load(path)
    with pytest.raises(WamError, match=r"one of \["):
        toy.statistics["acton"]
    with pytest.raises(WamError, match="one shape"):
        merge(Statistics({"a": FeatureStatistics.of(np.zeros((2, size)))}) for size in (1, 2))


def test_missing_statistics_are_computed(toy_root, tmp_path):
    import shutil

    root = shutil.copytree(toy_root, tmp_path / "copy")
    (root / "meta/stats.json").unlink()
    assert EpisodeStore(root).statistics["action"].count == sum(LENGTHS)
