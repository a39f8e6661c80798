"""Near-duplicates are found as surely as by comparing all pairs, and only they."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.curation.raw import SMALL, outcome, scene, write
from wam.contracts import WamError
from wam.data.curation.duplicates import BANDS, find_leaders, find_leaders_slowly, hash_array, map_array
from wam.data.curation.records import Clip


def near(rng: np.random.Generator, words: np.ndarray, bits: int) -> np.ndarray:
    """A hash that differs from `words` in so many bits."""
    flips = np.zeros(words.size * 64, np.uint8)
    flips[rng.permutation(flips.size)[:bits]] = 1
    return words ^ np.packbits(flips).view(">u8").astype(np.uint64)


def families(seed: int, *, most: int, parents: int = 30, size: int = 6) -> np.ndarray:
    """(N, 4) hashes in mixed order: each within `most` bits of its family's first."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 2**63, (parents, 4)).astype(np.uint64)
    rows = [near(rng, words, int(rng.integers(0, most + 1))) for words in first for _ in range(size)]
    return np.stack(rows)[rng.permutation(len(rows))]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), most=st.integers(0, 20))
def test_below_as_many_bits_as_bands_nothing_is_missed(seed, most):
    hashes = families(seed, most=most)
    moves = np.random.default_rng(seed).integers(0, 3, (len(hashes), 8)).astype(np.uint8)
    options = {"hash_bits": BANDS - 1, "motion_similarity": 0.3}
    fast, slow = find_leaders(hashes, moves, **options), find_leaders_slowly(hashes, moves, **options)
    assert np.array_equal(fast, slow)


def test_a_few_bits_more_are_hardly_ever_missed():
    hashes = families(0, most=24, parents=300)
    moves = np.tile(np.arange(8, dtype=np.uint8), (len(hashes), 1))
    options = {"hash_bits": 24, "motion_similarity": 0.9}
    fast, slow = find_leaders(hashes, moves, **options), find_leaders_slowly(hashes, moves, **options)
    assert (slow != np.arange(len(slow))).sum() > 500
    assert (fast != slow).mean() < 0.02


def test_every_clip_is_near_its_leader_and_leaders_lead_themselves():
    hashes = families(1, most=15)
    moves = np.tile(np.arange(8, dtype=np.uint8), (len(hashes), 1))
    leaders = find_leaders(hashes, moves, hash_bits=15, motion_similarity=0.9)
    assert np.array_equal(leaders[leaders], leaders)
    assert (leaders <= np.arange(len(leaders))).all()
    assert np.bitwise_count(hashes ^ hashes[leaders]).sum(1).max() <= 15


@pytest.mark.parametrize("count", [40, 600])
def test_close_embeddings_are_duplicates_whatever_the_pictures_look_like(count):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(count // 2, 64)) + 3  # as encoders give them: all in one corner
    vectors = np.concatenate([first, first + 0.15 * rng.normal(size=first.shape)]).astype(np.float32)
    hashes = rng.integers(0, 2**63, (count, 4)).astype(np.uint64)
    moves = rng.integers(0, 255, (count, 512)).astype(np.uint8)
    options = {"hash_bits": 15, "motion_similarity": 0.9, "embeddings": vectors, "embedding_similarity": 0.995}
    slow = find_leaders_slowly(hashes, moves, **options)
    assert np.array_equal(slow[count // 2 :], np.arange(count // 2))
    assert (find_leaders(hashes, moves, **options) == slow).mean() > 0.99
    alone = find_leaders(hashes, moves, hash_bits=15, motion_similarity=0.9)
    assert np.array_equal(alone, np.arange(count))


def leaders_of(*clips: Clip) -> list[int]:
    found = find_leaders(
        hash_array([clip.hash for clip in clips]),
        map_array([clip.motion_map for clip in clips]),
        hash_bits=SMALL.hash_bits,
        motion_similarity=SMALL.motion_similarity,
    )
    return found.tolist()


def test_a_clip_coded_anew_is_a_duplicate_and_another_moment_of_the_camera_is_none(tmp_path):
    frames = scene(60, seed=1)
    config = replace(SMALL, max_seconds=4.0)
    (first,), _ = outcome(write(tmp_path / "first.mp4", frames[:40]), config)
    dim = (frames[:40, ::2, ::2] * 0.85).astype(np.uint8)
    (again,), _ = outcome(write(tmp_path / "again.mp4", dim, options={"crf": "30"}), config)
    (later,), _ = outcome(write(tmp_path / "later.mp4", frames[20:]), config)
    (other,), _ = outcome(write(tmp_path / "other.mp4", scene(40, seed=2)), config)
    assert leaders_of(first, again, later, other) == [0, 0, 2, 3]
    assert first.sha256 != again.sha256


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(WamError, match="as many hashes"):
        find_leaders(np.zeros((2, 4), np.uint64), np.zeros((3, 8), np.uint8), hash_bits=1, motion_similarity=0.5)
