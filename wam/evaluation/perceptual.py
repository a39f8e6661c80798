"""LPIPS (Zhang et al., 2018) by the package `lpips`, with a label that says whether its trunk is trained.

The package's wheel holds only the small linear heads; the trunk (AlexNet, VGG) is a separate download that torchvision
keeps in torch's hub cache. Nothing is downloaded here: without the trunk's weights the distance is computed on random
features and is called `lpips_random_features`, which is a different figure and not comparable with published ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wam.contracts import expected
from wam.evaluation.video_metrics import check_pair

TRUNKS = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""Names of torchvision's weight files; the digits begin the file's sha256."""


@dataclass(frozen=True, kw_only=True)
class PerceptualDistance:
    """label: `lpips` or `lpips_random_features`. weights_sha256: of the trunk's file, None if random."""

    label: Literal["lpips", "lpips_random_features"]
    value: float
    network: str
    n: int
    weights_sha256: str | None


def lpips_distance(
    predicted: np.ndarray,
    real: np.ndarray,
    *,
    network: Literal["alex", "vgg"] = "alex",
    trunk_weights: str | Path | None = None,
    batch_size: int = 64,
) -> PerceptualDistance:
    """Mean LPIPS over all frames of float arrays (..., H, W, C) in [0, 1].

    trunk_weights: torchvision's weight file; by default the one in torch's hub cache, if it is there.
    Raises WamError without the extra `metrics`, or on a named file that is missing or not what its name says.
    """
    import torch

    check_pair(predicted, real)
    try:
        import lpips
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not match torch
        raise expected(
            "the packages lpips and torchvision for LPIPS", got=error, do="run pip install 'wam[metrics]'"
        ) from error
    weights = _find_trunk(network, trunk_weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random features are at least the same ones every time
        model = lpips.LPIPS(net=network, pnet_rand=True, verbose=False).eval()
    digest = None
    if weights is not None:
        content = weights.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        promised = weights.stem.rsplit("-", 1)[-1]
        if weights.name in TRUNKS.values() and not digest.startswith(promised):
            raise expected(
                f"{weights} with a sha256 that begins with {promised}", got=digest[:8], do="fetch the file again"
            )
        _load_trunk(model.net, torch.load(weights, map_location="cpu", weights_only=True), weights)
    a, b = (
        torch.from_numpy(np.ascontiguousarray(x.reshape(-1, *x.shape[-3:]), dtype=np.float32)).permute(0, 3, 1, 2)
        for x in (predicted, real)
    )
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(a), batch_size):
            rows = slice(start, start + batch_size)
            total += float(model(a[rows], b[rows], normalize=True).sum())
    return PerceptualDistance(
        label="lpips" if digest else "lpips_random_features",
        value=total / len(a),
        network=network,
        n=len(a),
        weights_sha256=digest,
    )


def _find_trunk(network: str, given: str | Path | None) -> Path | None:
    import torch

    if given is not None:
        if not Path(given).is_file():
            raise expected(f"trunk weights at {given}", got="no file", do="give torchvision's weight file or none")
        return Path(given)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / TRUNKS[network]
    return cached if cached.is_file() else None


def _load_trunk(trunk: Any, stored: dict[str, Any], path: Path) -> None:
    """torchvision names a layer `features.N.weight`, lpips `sliceM.N.weight` with the same N."""
    wanted = trunk.state_dict()
    try:
        state = {name: stored["features." + name.split(".", 1)[1]] for name in wanted}
        trunk.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise expected(
            f"the trunk's layers in {path}", got=f"a mismatch at {error}", do="give the weights of that network"
        ) from error
