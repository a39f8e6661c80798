"""What `wam eval latent-action` measures, and on what."""

from __future__ import annotations

from dataclasses import dataclass, field

from wam.tokenizers.latent_action import FeatureConfig


@dataclass(kw_only=True)
class PairsConfig:
    """Two folders of videos, one of human clips and one of robot clips that are aligned with them frame by frame; the name of
    a robot clip begins with that of its human clip. clips: those to use, all if empty; every: frames between windows."""

    human: str = ""
    robot: str = ""
    clips: list[str] = field(default_factory=list)
    every: int = 4


@dataclass(kw_only=True)
class LatentActionEvaluateConfig:
    """data: a dataset with states and actions, split as in training; empty: the first of the run's that has them.

    held_out, split_seed: of that split; null takes the run's. human: a dataset of clips that training did not see, none of
    its scenes; camera: the slot of the tokenizer that these and the pairs are given to; empty: its last. axes: of the state
    that are the hand's place.
    features: the frozen encoder of the baseline; without a name, small pictures stand for it. windows: at most, of each kind
    (probes are fitted on as many of the training episodes). moving: share of a human window's pixels that have to change.
    jitter: how far the camera of a still scene shakes, as a share of a side. pictures: columns of each picture.
    output: folder for pictures and summary.json; empty: evaluation/latent-action of the run.
    """

    data: str = ""
    held_out: float | None = None
    split_seed: int | None = None
    human: str = ""
    camera: str = ""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    axes: tuple[int, ...] = (0, 1, 2)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    windows: int = 3000
    moving: float = 0.01
    jitter: float = 0.03
    pictures: int = 8
    seed: int = 0
    threads: int = 0
    output: str = ""
