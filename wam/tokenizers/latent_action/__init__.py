"""Latent actions: what happened between two frames of any video, as a few numbers or codes, learned without labels.

`LatentActionTokenizer` is what users load; `LatentActionObjective` is what trains it.
"""

from wam.tokenizers.latent_action.config import AugmentConfig, FeatureConfig, LabelConfig, LatentActionConfig
from wam.tokenizers.latent_action.objective import LatentActionObjective
from wam.tokenizers.latent_action.tokenizer import LatentActions, LatentActionTokenizer

__all__ = [
    "AugmentConfig",
    "FeatureConfig",
    "LabelConfig",
    "LatentActionConfig",
    "LatentActionObjective",
    "LatentActionTokenizer",
    "LatentActions",
]
