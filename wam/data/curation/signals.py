"""What a clip's brightness tells: how much moves, how blurred it is, what it looks like and where it moves.

Every function takes (T, H, W) uint8, the clip at its own rate and size, or the small pictures that `thumbnails` makes
of it.
"""

from __future__ import annotations

import numpy as np

THUMBNAIL = 64  # pixels a side
CHANGED = 10  # a pixel of a thumbnail changes if it differs by more than this, of 255; noise of codecs stays below
MOVES = 0.005  # share of changed pixels from which on something moves
HASHED, BITS = 4, 64  # frames of a clip that are hashed, and bits of each
_BINS, _CELLS = 8, 8  # of the motion map: in time, and along each side
_BLUR_FRAMES, _BLUR_WIDTH = 5, 9


def thumbnails(luma: np.ndarray) -> np.ndarray:
    """(T, H, W) -> (T, 64, 64) uint8: each pixel the mean of an area."""
    import cv2

    side = (THUMBNAIL, THUMBNAIL)
    return np.stack([cv2.resize(frame, side, interpolation=cv2.INTER_AREA) for frame in luma])


def motion(small: np.ndarray) -> tuple[float, float]:
    """(T, 64, 64) -> the mean share of pixels that change from frame to frame, and the share of frames that move."""
    if len(small) < 2:
        return 0.0, 0.0
    changed = np.abs(np.diff(small.astype(np.int16), axis=0)) > CHANGED
    shares = changed.mean((1, 2))
    return float(shares.mean()), float((shares >= MOVES).mean())


def blur(luma: np.ndarray) -> float:
    """(T, H, W) -> the median over a few frames of how little a further blur would change them: 0 sharp, 1 no edges.

    The no-reference measure of Crete et al., "The blur effect" (2007); the sharper direction of the two counts less.
    """
    rows = np.unique(np.linspace(0, len(luma) - 1, _BLUR_FRAMES).round().astype(int))
    return float(np.median([_blur(frame) for frame in luma[rows]]))


def _blur(frame: np.ndarray) -> float:
    import cv2

    found = []
    for axis, kernel in ((0, (1, _BLUR_WIDTH)), (1, (_BLUR_WIDTH, 1))):
        own = np.abs(np.diff(frame.astype(np.int16), axis=axis))
        blurred = np.abs(np.diff(cv2.blur(frame, kernel).astype(np.int16), axis=axis))
        total = int(own.sum())
        lost = int(np.maximum(own - blurred, 0).sum())
        found.append(1.0 if total < own.size // 10 else 1 - lost / total)  # next to nothing varies: no edges at all
    return max(found)


def perceptual_hash(small: np.ndarray) -> np.ndarray:
    """(T, 64, 64) -> (4,) uint64: of four frames spread over the clip, the signs of 64 low frequencies.

    A frequency's bit says whether it lies above the median, so brightness, contrast and compression change little.
    """
    import cv2

    rows = ((np.arange(HASHED) + 0.5) / HASHED * len(small)).astype(int)
    words = np.empty(HASHED, np.uint64)
    for place, row in enumerate(rows):
        picture = cv2.resize(small[row], (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
        low = cv2.dct(picture)[:8, :9]
        values = low.reshape(-1)[1:65]  # without the mean
        words[place] = np.packbits(values > np.median(values)).view(">u8")[0]
    return words


def motion_map(small: np.ndarray) -> np.ndarray:
    """(T, 64, 64) -> (512,) uint8: how much changes in eight stretches of time and 8 x 8 places, the most being 255.

    Clips of one camera look alike all day; where and when they move tells them apart.
    """
    steps = np.abs(np.diff(small.astype(np.int16), axis=0)).astype(np.float32)
    side = THUMBNAIL // _CELLS
    cells = steps.reshape(len(steps), _CELLS, side, _CELLS, side).mean((2, 4))
    edges = np.linspace(0, len(cells), _BINS + 1).round().astype(int)
    bins = [cells[a : max(b, a + 1)].mean(0) if a < len(cells) else cells[-1] for a, b in zip(edges, edges[1:])]  # noqa: B905, RUF007
    found = np.stack(bins)
    return (found * (255 / max(float(found.max()), 1e-6))).round().astype(np.uint8).reshape(-1)
