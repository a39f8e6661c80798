"""Policies that wam trained, for LeRobot: importing this registers the policy type `wam`."""

from lerobot_policy_wam.configuration_wam import WamConfig

__all__ = ["WamConfig"]
