"""Pretraining on video without labels, and post-training on episodes that have them: two names for the joint stage.

Pretraining sees no action and no state, whatever its datasets hold; latent actions stand in for them where the config
names a tokenizer (LAPA, Moto, GO-1), or the video alone is learned (GR-1). Post-training starts from the weights so found.
"""

from __future__ import annotations

from dataclasses import replace

from wam.contracts import expected
from wam.training.config import TrainConfig
from wam.training.stages.joint import JointStage


class PretrainStage(JointStage):
    """The joint stage on video alone."""

    def __init__(self, config: TrainConfig) -> None:
        if "action" in config.model.streams:
            raise expected(
                "a model without an action stream, which video alone cannot teach",
                got="one with it",
                do="set model.streams.action=null, and latent_actions=FOLDER for a latent_action stream in its place",
            )
        config.data = replace(config.data, parts=[replace(part, hide_actions=True) for part in config.data.parts])
        super().__init__(config)


class PosttrainStage(JointStage):
    """The joint stage from pretrained weights."""

    def __init__(self, config: TrainConfig) -> None:
        if not config.start.checkpoint:
            raise expected(
                "weights to start from",
                got="none",
                do="set start.checkpoint to a pretrained run, or use stage=joint to start from nothing",
            )
        super().__init__(config)
