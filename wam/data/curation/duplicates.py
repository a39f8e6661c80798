"""Near-duplicate clips, found without comparing every pair.

Clips are taken one after the other. Each joins the first earlier *leader* that it repeats, or becomes a leader itself, so
every clip is near its own leader and clusters do not drift. It repeats a leader if their perceptual hashes differ in few
bits and they move at the same times and places (one camera's clips look alike all day), or if the embeddings that a
caller gives lie close.

Which leaders to compare with is looked up: two hashes that differ in fewer bits than there are bands agree in a whole
band, so nothing is missed; for embeddings the bands are signs of random projections, which miss hardly anything. The
lookups cost the same however many clips there are, up to about a million; then bands have to be longer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam.contracts import expected

BANDS = 16  # of 16 bits each: so many differing bits, less one, are found with certainty
_PROJECTIONS, _SIGNS = 24, 12  # bands of an embedding, and bits of each
_ENOUGH = 64  # embeddings whose mean says something


def find_leaders(
    hashes: np.ndarray,
    motion_maps: np.ndarray,
    *,
    hash_bits: int,
    motion_similarity: float,
    embeddings: np.ndarray | None = None,
    embedding_similarity: float = 1.0,
) -> np.ndarray:
    """(N, 4) uint64 hashes, (N, M) uint8 motion maps and perhaps (N, D) embeddings -> (N,) each clip's leader.

    hash_bits: how many may differ, below BANDS if none is to be missed. Raises WamError for arrays of unequal length.
    """
    shapes = {len(hashes), len(motion_maps), len(hashes) if embeddings is None else len(embeddings)}
    if len(shapes) > 1:
        raise expected("as many hashes, motion maps and embeddings", got=sorted(shapes), do="give one of each per clip")
    moves = _directions(motion_maps.astype(np.float32), centre_rows=True)
    means = None if embeddings is None else _directions(np.asarray(embeddings, np.float32))
    keys = _band_keys(hashes, means)
    buckets: list[dict[int, list[int]]] = [{} for _ in range(keys.shape[1])]
    leaders = np.arange(len(hashes))
    for index, row in enumerate(keys.tolist()):
        near: set[int] = set()
        for bucket, key in zip(buckets, row, strict=True):
            near.update(bucket.get(key, ()))
        chosen = np.array(sorted(near), np.int64)
        same = _repeats(index, chosen, hashes, moves, means, hash_bits, motion_similarity, embedding_similarity)
        if same.any():
            leaders[index] = chosen[same.argmax()]
            continue
        for bucket, key in zip(buckets, row, strict=True):
            bucket.setdefault(key, []).append(index)
    return leaders


def find_leaders_slowly(
    hashes: np.ndarray,
    motion_maps: np.ndarray,
    *,
    hash_bits: int,
    motion_similarity: float,
    embeddings: np.ndarray | None = None,
    embedding_similarity: float = 1.0,
) -> np.ndarray:
    """The same, comparing with every leader: what `find_leaders` is held to."""
    moves = _directions(motion_maps.astype(np.float32), centre_rows=True)
    means = None if embeddings is None else _directions(np.asarray(embeddings, np.float32))
    leaders = np.arange(len(hashes))
    so_far: list[int] = []
    for index in range(len(hashes)):
        chosen = np.array(so_far, np.int64)
        same = _repeats(index, chosen, hashes, moves, means, hash_bits, motion_similarity, embedding_similarity)
        if same.any():
            leaders[index] = chosen[same.argmax()]
        else:
            so_far.append(index)
    return leaders


def hash_array(texts: Sequence[str]) -> np.ndarray:
    """Hexadecimal hashes of the records -> (N, 4) uint64."""
    return np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64).reshape(len(texts), -1)


def map_array(texts: Sequence[str]) -> np.ndarray:
    """Hexadecimal motion maps of the records -> (N, M) uint8."""
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(len(texts), -1)


def _repeats(
    index: int,
    chosen: np.ndarray,
    hashes: np.ndarray,
    moves: np.ndarray,
    means: np.ndarray | None,
    hash_bits: int,
    motion_similarity: float,
    embedding_similarity: float,
) -> np.ndarray:
    """Which of the chosen leaders the clip repeats."""
    if not len(chosen):
        return np.zeros(0, bool)
    differing = np.bitwise_count(hashes[chosen] ^ hashes[index]).sum(1)
    same = (differing <= hash_bits) & (moves[chosen] @ moves[index] >= motion_similarity)
    if means is not None:
        same |= means[chosen] @ means[index] >= embedding_similarity
    return same


def _band_keys(hashes: np.ndarray, means: np.ndarray | None) -> np.ndarray:
    """(N, bands): what clips must share in some band to be compared."""
    keys = np.ascontiguousarray(hashes).view(np.uint16).reshape(len(hashes), BANDS)
    if means is None or not len(means):
        return keys
    centred = means - means.mean(0) if len(means) >= _ENOUGH else means
    planes = np.random.default_rng(0).normal(size=(means.shape[1], _PROJECTIONS * _SIGNS)).astype(np.float32)
    signs = (centred @ planes > 0).reshape(len(means), _PROJECTIONS, _SIGNS)
    return np.concatenate([keys, signs @ (1 << np.arange(_SIGNS))], axis=1)


def _directions(rows: np.ndarray, *, centre_rows: bool = False) -> np.ndarray:
    """Rows of length one, so that products are cosines."""
    rows = rows - rows.mean(1, keepdims=True) if centre_rows else rows
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
