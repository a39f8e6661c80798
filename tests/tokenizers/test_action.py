"""Action tokenizers: what bins and FAST codes lose, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from wam.contracts import WamError
from wam.tokenizers.action import BinTokenizer, FastTokenizer

Q01, Q99 = np.array([-1.0, 0.0, 100.0]), np.array([1.0, 0.001, 500.0])


def walks(count: int, *, chunk: int = 16, dim: int = 4, seed: int = 0) -> np.ndarray:
    """Smooth chunks (N, K, A): sums of two slow sines, in units from 1 to 1000."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, chunk)[None, :, None]
    speed, phase, size = (rng.uniform(low, high, (count, 1, dim)) for low, high in ((0.2, 1.5), (0, 6.3), (0.2, 1)))
    return size * np.sin(2 * np.pi * speed * time + phase) * np.logspace(0, 3, dim)


@pytest.fixture(scope="module")
def fast() -> FastTokenizer:
    return FastTokenizer.fit(walks(400))


class TestBins:
    @given(nps.arrays(np.float64, (5, 3), elements=st.floats(0, 1)))
    def test_inside_the_quantiles_the_error_is_at_most_half_a_bin(self, share: np.ndarray) -> None:
        bins = BinTokenizer(Q01, Q99)
        action = Q01 + share * (Q99 - Q01)
        error = np.abs(bins.decode(bins.encode(action)) - action)
        assert (error <= bins.resolution * 0.50001 + np.abs(action) * 1e-6).all()

    @given(nps.arrays(np.float64, (4, 3), elements=st.floats(-1e6, 1e6)))
    def test_beyond_the_quantiles_codes_stay_in_range(self, action: np.ndarray) -> None:
        codes = BinTokenizer(Q01, Q99, bins=16).encode(action)
        assert codes.dtype == np.int64
        assert codes.min() >= 0
        assert codes.max() <= 15

    @given(nps.arrays(np.int64, (2, 6, 3), elements=st.integers(0, 255)))
    def test_codes_survive_decoding(self, codes: np.ndarray) -> None:
        bins = BinTokenizer(Q01, Q99)
        assert (bins.encode(bins.decode(codes)) == codes).all()

    def test_fit_takes_the_quantiles_and_ignores_a_rare_outlier(self) -> None:
        actions = np.random.default_rng(0).uniform(-1, 1, (10_000, 2))
        actions[0] = 1e6
        bins = BinTokenizer.fit(actions)
        np.testing.assert_allclose(bins.resolution, 2 * 0.98 / 256, rtol=0.02)

    def test_a_dimension_that_never_moves_comes_back(self) -> None:
        bins = BinTokenizer.fit(np.full((50, 1), 0.7))
        np.testing.assert_allclose(bins.decode(bins.encode(np.array([0.7]))), [0.7], atol=1e-6)

    def test_saved_and_loaded_gives_the_same_codes(self, tmp_path: Path) -> None:
        bins = BinTokenizer(Q01, Q99, bins=99)
        bins.save(tmp_path / "deep" / "bins.json")
        loaded = BinTokenizer.load(tmp_path / "deep" / "bins.json")
        action = np.random.default_rng(0).uniform(Q01, Q99, (100, 3))
        assert (loaded.encode(action) == bins.encode(action)).all()
        assert loaded.vocabulary == 99

    @pytest.mark.parametrize("bad", [np.zeros((4, 2)), np.full((4, 3), np.nan)])
    def test_wrong_shapes_and_nan_are_refused(self, bad: np.ndarray) -> None:
        with pytest.raises(WamError, match=r"finite actions of shape \(\.\.\., 3\)"):
            BinTokenizer(Q01, Q99).encode(bad)

    @pytest.mark.parametrize("bad", [[[0, 0, 256]], [[-1, 0, 0]], [[0, 0]]])
    def test_codes_out_of_range_are_refused(self, bad: list[list[int]]) -> None:
        with pytest.raises(WamError, match=r"in 0\.\.255"):
            BinTokenizer(Q01, Q99).decode(np.array(bad))

    def test_quantiles_in_the_wrong_order_are_refused(self) -> None:
        with pytest.raises(WamError, match="q01 <= q99"):
            BinTokenizer(Q99, Q01)


class TestFast:
    def test_smooth_chunks_come_back_within_a_few_percent_of_their_range(self, fast: FastTokenizer) -> None:
        unseen = walks(50, seed=1)
        back = np.stack([fast.decode(fast.encode(chunk)) for chunk in unseen])
        span = fast.scaler.q99 - fast.scaler.q01
        assert back.dtype == np.float32
        assert np.sqrt((((back - unseen) / span) ** 2).mean()) < 0.03

    @given(nps.arrays(np.float64, (16, 4), elements=st.floats(-1, 1)))
    def test_any_chunk_of_the_range_comes_back_within_the_rounding(self, scaled: np.ndarray) -> None:
        fast = _shared()
        chunk = fast.scaler.unscale(scaled)
        error = fast.scaler.scale(fast.decode(fast.encode(chunk))) - fast.scaler.scale(chunk)
        # the transform keeps lengths, and each of 16 coefficients is off by at most half a step
        assert (np.sqrt((error**2).sum(axis=0)) <= np.sqrt(16) * 0.5 / fast.scale + 1e-4).all()

    @given(st.lists(st.integers(0, 600), max_size=200))
    def test_any_ids_decode_to_a_finite_chunk(self, ids: list[int]) -> None:
        assert np.isfinite(_shared().decode(ids)).all()
        assert _shared().decode(ids).shape == (16, 4)

    def test_smooth_chunks_take_far_fewer_ids_than_numbers(self, fast: FastTokenizer) -> None:
        smooth = np.mean([len(fast.encode(chunk)) for chunk in walks(50, seed=1)])
        rough = np.random.default_rng(0).uniform(fast.scaler.q01, fast.scaler.q99, (50, 16, 4))
        assert smooth < 0.5 * 16 * 4
        assert smooth < 0.7 * np.mean([len(fast.encode(chunk)) for chunk in rough])

    def test_a_finer_scale_loses_less_and_takes_more_ids(self) -> None:
        chunks, unseen = walks(300), walks(30, seed=1)
        errors, lengths = [], []
        for scale in (4.0, 40.0):
            fast = FastTokenizer.fit(chunks, scale=scale)
            errors.append(np.abs([fast.decode(fast.encode(c)) - c for c in unseen]).mean())
            lengths.append(np.mean([len(fast.encode(c)) for c in unseen]))
        assert errors[1] < 0.3 * errors[0]
        assert lengths[1] > lengths[0]

    def test_saved_and_loaded_gives_the_same_ids(self, fast: FastTokenizer, tmp_path: Path) -> None:
        fast.save(tmp_path / "fast.json")
        loaded = FastTokenizer.load(tmp_path / "fast.json")
        for chunk in walks(20, seed=2):
            assert loaded.encode(chunk) == fast.encode(chunk)
            assert (loaded.decode(fast.encode(chunk)) == fast.decode(fast.encode(chunk))).all()

    def test_a_chunk_of_another_length_is_refused(self, fast: FastTokenizer) -> None:
        with pytest.raises(WamError, match=r"a chunk of shape \(16, 4\)"):
            fast.encode(walks(1, chunk=8)[0])

    def test_an_id_beyond_the_vocabulary_is_refused(self, fast: FastTokenizer) -> None:
        with pytest.raises(WamError, match=r"ids in 0\.\."):
            fast.decode([fast.vocabulary])

    def test_a_vocabulary_too_small_for_the_letters_is_refused(self) -> None:
        with pytest.raises(WamError, match="at least 511"):
            FastTokenizer.fit(walks(5), vocabulary=300)

    def test_no_chunks_are_refused(self) -> None:
        with pytest.raises(WamError, match="stack windows"):
            FastTokenizer.fit(np.zeros((0, 16, 4)))


class TestFiles:
    def test_a_file_of_the_other_kind_is_refused(self, tmp_path: Path) -> None:
        BinTokenizer(Q01, Q99).save(tmp_path / "a.json")
        with pytest.raises(WamError, match=r"kind 'fast' in .* got 'bins'"):
            FastTokenizer.load(tmp_path / "a.json")

    def test_a_missing_file_names_near_ones(self, tmp_path: Path) -> None:
        (tmp_path / "bins.json").write_text("{}")
        with pytest.raises(WamError, match=r"bins\.json"):
            BinTokenizer.load(tmp_path / "bin.json")

    @pytest.mark.parametrize(
        "text", ["{", "[]", json.dumps({"kind": "nothing"}), json.dumps({"kind": "bins", "q01": [0]})]
    )
    def test_a_broken_file_is_one_sentence(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(WamError, match=r"a\.json"):
            BinTokenizer.load(tmp_path / "a.json")


_CACHE: list[FastTokenizer] = []


def _shared() -> FastTokenizer:
    """One fitted tokenizer for property tests, which take no module fixtures."""
    if not _CACHE:
        _CACHE.append(FastTokenizer.fit(walks(400)))
    return _CACHE[0]
