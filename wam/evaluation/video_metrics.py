"""How near a predicted video is to the real one, on float arrays in [0, 1] shaped (..., H, W, C).

PSNR and squared errors are pooled: errors are averaged over everything first, so still frames (whose own PSNR is
infinite) cannot carry the mean. Pixels that change against the present frame are where a prediction can be wrong.
"""

from __future__ import annotations

import math

import numpy as np

from wam.contracts import expected

CHANGED = 0.1
"""A pixel has changed when one of its channels differs from the present frame by more than this."""


def check_pair(predicted: np.ndarray, real: np.ndarray) -> None:
    """Both float in [0, 1], finite and of one shape, or a clear error."""
    if predicted.shape != real.shape:
        raise expected(
            f"predicted frames of the real frames' shape {real.shape}",
            got=predicted.shape,
            do="predict the same views, frames and resolution",
        )
    for name, frames in (("predicted", predicted), ("real", real)):
        if frames.dtype == np.uint8 or not np.issubdtype(frames.dtype, np.floating):
            raise expected(f"{name} frames as floats in [0, 1]", got=frames.dtype, do="divide 8-bit frames by 255")
        if not np.isfinite(frames).all():
            raise expected(f"finite {name} frames", got="NaN or infinity", do="check the model's output")
        if frames.size and not (frames.min() >= -1e-3 and frames.max() <= 1 + 1e-3):
            raise expected(
                f"{name} frames in [0, 1]",
                got=f"values from {frames.min():.3g} to {frames.max():.3g}",
                do="clamp the model's output",
            )


def squared_error(predicted: np.ndarray, real: np.ndarray, *, where: np.ndarray | None = None) -> float:
    """Mean squared error, over the pixels of `where` (a mask of shape (..., H, W)) if given; NaN if it is empty."""
    check_pair(predicted, real)
    error = np.square(predicted.astype(np.float32) - real.astype(np.float32)).mean(-1)
    chosen = error if where is None else error[np.broadcast_to(where, error.shape)]
    return float(chosen.mean(dtype=np.float64)) if chosen.size else math.nan


def to_psnr(error: float) -> float:
    """Mean squared error to decibels."""
    if error == 0:
        return math.inf
    return -10 * math.log10(error)


def psnr(predicted: np.ndarray, real: np.ndarray, *, where: np.ndarray | None = None) -> float:
    """Pooled peak signal-to-noise ratio in dB."""
    return to_psnr(squared_error(predicted, real, where=where))


def changed_pixels(real: np.ndarray, present: np.ndarray, *, threshold: float = CHANGED) -> np.ndarray:
    """(..., H, W) bool: where `real` differs from the `present` frame (broadcast against it) in any channel."""
    return np.abs(real - present).max(-1) > threshold


def changed_error(predicted: np.ndarray, real: np.ndarray, present: np.ndarray, *, threshold: float = CHANGED) -> float:
    """Squared error on the pixels that really changed since the present frame."""
    return squared_error(predicted, real, where=changed_pixels(real, present, threshold=threshold))


def changed_psnr(predicted: np.ndarray, real: np.ndarray, present: np.ndarray, *, threshold: float = CHANGED) -> float:
    """PSNR on the pixels that really changed since the present frame."""
    return to_psnr(changed_error(predicted, real, present, threshold=threshold))


def ssim(predicted: np.ndarray, real: np.ndarray) -> float:
    """Mean structural similarity (Wang et al., 2004; Gaussian window of 11 pixels, data range 1) over all frames."""
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_pair(predicted, real)
    frames = [
        torch.from_numpy(np.ascontiguousarray(x.reshape(-1, *x.shape[-3:]), dtype=np.float32)).permute(0, 3, 1, 2)
        for x in (predicted, real)
    ]
    total = 0.0
    for start in range(0, len(frames[0]), 256):
        a, b = (x[start : start + 256] for x in frames)
        value = structural_similarity_index_measure(a, b, data_range=1.0)
        assert isinstance(value, torch.Tensor)
        total += float(value) * len(a)
    return total / len(frames[0])
