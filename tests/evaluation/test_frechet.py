"""The Fréchet distance agrees with its formula and never takes a name that it has not earned."""

import numpy as np
import pytest
import torch

from wam.contracts import WamError
from wam.evaluation.frechet import (
    RandomConvolutions,
    TorchScriptFeatures,
    features_distance,
    frechet_distance,
    gaussian_distance,
)

RNG = np.random.default_rng(0)
VIDEOS = RNG.uniform(size=(64, 4, 16, 16, 3)).astype(np.float32)


def test_known_gaussians():
    a, b = np.diag([4.0, 1.0]), np.diag([1.0, 9.0])
    assert gaussian_distance(np.zeros(2), a, np.array([3.0, 0]), b) == pytest.approx(9 + 1 + 4)


def test_correlated_gaussians_agree_with_scipy():
    from scipy.linalg import sqrtm

    a, b = (np.cov(RNG.normal(size=(6, 50)) * RNG.uniform(0.5, 2, (6, 1))) for _ in range(2))
    ours = gaussian_distance(np.zeros(6), a, np.zeros(6), b)
    assert ours == pytest.approx(np.trace(a + b - 2 * sqrtm(a @ b).real), rel=1e-6)


def test_equal_sets_are_at_distance_zero_and_distance_is_symmetric():
    x, y = RNG.normal(size=(100, 5)), RNG.normal(1, 2, size=(80, 5))
    assert features_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert features_distance(x, y) == pytest.approx(features_distance(y, x))


def test_worse_videos_are_farther_and_a_frozen_film_is_seen():
    slight, strong = ((VIDEOS + RNG.normal(0, s, VIDEOS.shape)).clip(0, 1).astype(np.float32) for s in (0.05, 0.4))
    near, far = frechet_distance(slight, VIDEOS), frechet_distance(strong, VIDEOS)
    assert 0 < near.value < far.value
    frozen = np.repeat(VIDEOS[:, :1], 4, 1)
    assert frechet_distance(frozen, VIDEOS).value > near.value


def test_the_protocol_is_written_down_and_hashed():
    result = frechet_distance(VIDEOS, VIDEOS, stride=2)
    assert result.label == "frechet_randconv"
    assert (result.protocol["frames"], result.protocol["n"]) == (2, [64, 64])
    assert result.protocol["weights_sha256"] == RandomConvolutions().sha256
    assert result.protocol["sha256"] != frechet_distance(VIDEOS, VIDEOS).protocol["sha256"]
    assert not result.biased
    assert frechet_distance(VIDEOS[:10], VIDEOS).biased


def test_the_offline_extractor_is_the_same_everywhere():
    assert RandomConvolutions().sha256.startswith(EXTRACTOR)
    assert RandomConvolutions(seed=1).sha256 != RandomConvolutions().sha256


EXTRACTOR = "e0e3efa2d7172510"


class Flat(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3, 4)).repeat(1, 134)[:, :400]


class LooksLikeI3D(Flat):
    def __init__(self):
        super().__init__()
        for name in ("Conv3d_1a_7x7", "Mixed_3b", "Mixed_4f", "Mixed_5c"):
            self.add_module(name, torch.nn.Conv3d(3, 3, 1))


def test_only_an_i3d_network_earns_the_name_fvd(tmp_path):
    for module, label in ((Flat(), "frechet_flat"), (LooksLikeI3D(), "fvd")):
        path = tmp_path / f"{'flat' if label != 'fvd' else 'i3d'}.pt"
        torch.jit.script(module).save(str(path))
        extractor = TorchScriptFeatures(path, resize=None)
        assert frechet_distance(VIDEOS, VIDEOS, extractor=extractor).label == label
    with pytest.raises(WamError, match="no file"):
        TorchScriptFeatures(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(WamError, match="another format"):
        TorchScriptFeatures(tmp_path / "bad.pt")


def test_one_video_is_too_few():
    with pytest.raises(WamError, match="at least 2"):
        frechet_distance(VIDEOS[:1], VIDEOS)
