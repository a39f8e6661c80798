"""Video metrics on cases whose answer is known."""

import math

import numpy as np
import pytest

from wam.contracts import WamError
from wam.evaluation import video_metrics as metrics

RNG = np.random.default_rng(0)
REAL = RNG.uniform(0.2, 0.8, (2, 3, 16, 16, 3)).astype(np.float32)


def test_psnr_of_a_constant_error_is_known():
    assert metrics.psnr(REAL + 0.1, REAL) == pytest.approx(20, rel=1e-4)
    assert metrics.psnr(REAL, REAL) == math.inf


def test_psnr_is_pooled_so_that_still_frames_cannot_carry_it():
    predicted = REAL.copy()
    predicted[0] += 0.1  # half of the videos are perfect: half the error, three decibels
    assert metrics.psnr(predicted, REAL) == pytest.approx(20 + 10 * math.log10(2), rel=1e-4)


def test_only_changed_pixels_count_where_asked():
    present = REAL[:, :1]
    later = np.repeat(present, 3, 1)
    later[:, :, 4, 5] = 1 - later[:, :, 4, 5] * 0.2
    predicted = later + 0.05
    predicted[:, :, 4, 5] = later[:, :, 4, 5] - 0.1
    changed = metrics.changed_pixels(later, present)
    assert changed.sum() == 6
    assert metrics.changed_error(predicted.clip(0, 1), later, present) == pytest.approx(0.01, rel=1e-3)
    assert metrics.changed_psnr(predicted.clip(0, 1), later, present) == pytest.approx(20, rel=1e-3)
    assert math.isnan(metrics.changed_error(predicted.clip(0, 1), np.repeat(present, 3, 1), present))


def test_ssim_is_one_for_equals_and_falls_with_noise():
    assert metrics.ssim(REAL, REAL) == pytest.approx(1)
    noisy = [metrics.ssim((REAL + RNG.normal(0, s, REAL.shape)).clip(0, 1), REAL) for s in (0.02, 0.1)]
    assert 1 > noisy[0] > noisy[1] > 0


def test_wrong_inputs_are_refused():
    with pytest.raises(WamError, match="floats"):
        metrics.psnr((REAL * 255).astype(np.uint8), (REAL * 255).astype(np.uint8))
    with pytest.raises(WamError, match="real frames' shape"):
        metrics.psnr(REAL[:1], REAL)
    with pytest.raises(WamError, match=r"in \[0, 1\]"):
        metrics.psnr(REAL * 2, REAL)
    with pytest.raises(WamError, match="finite predicted frames"):
        metrics.psnr(REAL * np.nan, REAL)
