"""Which part of a model a run trains, where that is not all of it."""

from __future__ import annotations

from torch import nn

from wam.contracts import expected


def tune_soft_prompts(network: nn.Module) -> int:
    """Train the soft prompts alone: learned tokens for each robot, beside its state (X-VLA, Zheng et al. 2025; prompt tuning,
    Lester et al. 2021). How many numbers they have. Raises WamError where the model has none that a stream reads."""
    prompts = {name: p for name, p in network.named_parameters() if is_soft_prompt(name) and p.numel()}
    if not prompts:
        raise expected(
            "soft prompts to train for tune=soft_prompts",
            got="a model without any that a stream reads",
            do="set model.soft_prompts=16 and keep the state stream, or set tune=all",
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in prompts)
    return sum(p.numel() for p in prompts.values())


def is_soft_prompt(name: str) -> bool:
    """Is the parameter of this name in the network one of soft prompts?"""
    pieces = name.split(".")
    return len(pieces) == 3 and (pieces[0], pieces[2]) == ("stems", "prompts")
