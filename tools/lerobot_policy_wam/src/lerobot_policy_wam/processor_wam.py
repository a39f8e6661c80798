"""What LeRobot does with a batch before and after a policy of wam's: names, batch and device. Scaling is the network's own."""

from __future__ import annotations

from typing import Any

from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from lerobot_policy_wam.configuration_wam import WamConfig


def make_wam_pre_post_processors(
    config: WamConfig, dataset_stats: Any = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """LeRobot's default steps; a dataset's statistics have nothing to do in them."""
    return make_default_pre_post_processors(config)
