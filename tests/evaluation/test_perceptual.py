"""LPIPS is labelled by what its trunk holds, and its absence is one sentence."""

import builtins
import hashlib
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from wam.contracts import WamError
from wam.evaluation.perceptual import lpips_distance

A = np.random.default_rng(0).uniform(size=(2, 3, 8, 8, 3)).astype(np.float32)


class Trunk(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slice1 = torch.nn.Sequential()
        self.slice1.add_module("0", torch.nn.Conv2d(3, 4, 3))

    def forward(self, x):
        return self.slice1(x)


class Lpips(torch.nn.Module):
    """What this project uses of the package: the same arguments, the same names of layers."""

    def __init__(self, *, net, pnet_rand, verbose):
        super().__init__()
        assert pnet_rand, "a trunk that is not random would be downloaded"
        self.net = Trunk()

    def forward(self, a, b, *, normalize):
        assert normalize
        return (self.net(a) - self.net(b)).square().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def fake_package(monkeypatch, tmp_path):
    package = ModuleType("lpips")
    package.LPIPS = Lpips
    monkeypatch.setitem(sys.modules, "lpips", package)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))


def test_without_the_package_one_sentence_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "lpips":
            raise ModuleNotFoundError("No module named 'torchvision'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WamError, match=r"torchvision.*wam\[metrics\]"):
        lpips_distance(A, A)


def test_random_features_are_called_so_and_repeat(fake_package):
    result = lpips_distance(A, 1 - A)
    assert (result.label, result.weights_sha256, result.n) == ("lpips_random_features", None, 6)
    torch.rand(3)
    assert lpips_distance(A, 1 - A) == result
    assert lpips_distance(A, A).value == 0


def test_given_weights_earn_the_name_and_are_hashed(fake_package, tmp_path):
    path = tmp_path / "trunk.pth"
    torch.save({"features.0.weight": torch.ones(4, 3, 3, 3), "features.0.bias": torch.zeros(4)}, path)
    result = lpips_distance(A, 1 - A, trunk_weights=path)
    assert result.label == "lpips"
    assert result.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.value != lpips_distance(A, 1 - A).value
    torch.save({"features.7.weight": torch.ones(1)}, path)
    with pytest.raises(WamError, match="trunk's layers"):
        lpips_distance(A, A, trunk_weights=path)
    with pytest.raises(WamError, match="no file"):
        lpips_distance(A, A, trunk_weights=tmp_path / "none.pth")


def test_a_corrupt_file_in_the_cache_is_refused(fake_package, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    torch.save({}, tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    with pytest.raises(WamError, match="begins with 7be5be79"):
        lpips_distance(A, A)
