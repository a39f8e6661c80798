"""What the processes of one run agree on: the losses they log and judge, a request to stop, and the words they have met.

A rank's share of a batch is to one rank alone a part of the step that it accumulates: the same windows with the same random
draws (`part_number`). So two ranks train as one does that accumulates two parts, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn


def part_number(part: int, accelerator: Accelerator) -> int:
    """The place of this rank's share of a part among all shares of a step."""
    return part * accelerator.num_processes + accelerator.process_index


def agree(losses: Mapping[str, Tensor], stop: int, accelerator: Accelerator) -> tuple[dict[str, float], int]:
    """Losses as means over the ranks, and the signal that any of them was sent (0: none), the same on every rank."""
    own = torch.stack([*(value.detach().float() for value in losses.values()), losses["loss"].new_tensor(float(stop))])
    told = accelerator.gather(own[None])
    means = told.mean(0).tolist()
    return dict(zip(losses, means, strict=False)), int(told[:, -1].max())


@torch.no_grad()
def share_flags(module: nn.Module, accelerator: Accelerator) -> None:
    """Every boolean buffer true where it is on any rank, such as the words that a text encoder has met."""
    flags = [buffer for buffer in module.buffers() if buffer.dtype == torch.bool]
    if accelerator.num_processes == 1 or not flags:
        return
    counts = accelerator.reduce(torch.cat([flag.flatten() for flag in flags]).int(), reduction="sum")
    for flag, count in zip(flags, counts.split([flag.numel() for flag in flags]), strict=True):
        flag.copy_((count > 0).view_as(flag))
