"""What the decoder has to foresee, by name: features of a frozen encoder, or optical flow. Pixels need no target."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import expected
from wam.tokenizers.latent_action.config import TARGETS, LatentActionConfig
from wam.tokenizers.latent_action.decoder import FLOW_SCALE
from wam.tokenizers.latent_action.encoder import GRID
from wam.tokenizers.latent_action.features import FrozenFeatures, make_features
from wam.tokenizers.latent_action.flow import optical_flow


class Target(nn.Module, abc.ABC):
    """channels, fold: of the picture its decoder reads; outputs: channels to predict; copies: the prediction starts as a
    copy of what is read."""

    channels: int
    outputs: int
    fold: int
    copies: bool

    @abc.abstractmethod
    def inputs(self, present: Tensor) -> Tensor:
        """Present pictures (P, 3, H, W) in [-1, 1] -> what the decoder reads (P, channels, h, w)."""

    @abc.abstractmethod
    def values(self, present: Tensor, later: Tensor) -> Tensor:
        """What it has to predict, (P, outputs, h, w)."""

    @abc.abstractmethod
    def side(self, image_size: int) -> int:
        """h and w."""


class FeatureTarget(Target):
    """Features of a frozen encoder on a grid of 8 x 8, each channel normalised over the training pictures."""

    fold, copies = 1, True

    def __init__(self, features: FrozenFeatures) -> None:
        super().__init__()
        self.features = features
        self.channels = self.outputs = features.channels
        self.norm = nn.BatchNorm2d(features.channels, affine=False, momentum=0.02)

    def inputs(self, present: Tensor) -> Tensor:
        with torch.no_grad():
            return self.norm(F.adaptive_avg_pool2d(self.features(present), GRID).float())

    def values(self, present: Tensor, later: Tensor) -> Tensor:
        return self.inputs(later)

    def side(self, image_size: int) -> int:
        return GRID


class FlowTarget(Target):
    """Optical flow from the present to the later picture, measured without learning."""

    channels, outputs, fold, copies = 3, 2, 2, False

    def inputs(self, present: Tensor) -> Tensor:
        return present

    def values(self, present: Tensor, later: Tensor) -> Tensor:
        with torch.no_grad():
            return optical_flow(present, later) / FLOW_SCALE

    def side(self, image_size: int) -> int:
        return image_size


def make_target(config: LatentActionConfig) -> Target | None:
    """The target that the config names; None for pixels."""
    if config.target == "pixels":
        return None
    if config.target == "flow":
        return FlowTarget()
    if config.target == "features":
        return FeatureTarget(make_features(config.features))
    raise expected(f"a target among {', '.join(TARGETS)}", got=repr(config.target), do="name one of them")
