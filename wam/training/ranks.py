"""What the processes of one run agree on: the losses they log and judge, a request to stop, and the words they have met.

A rank's share of a batch is to one rank alone a part of the step that it accumulates: the same windows with the same random
draws (`part_number`). So two ranks train as one does that accumulates two parts, to rounding. Ranks that share the
tokens of the same windows (`wam.model.context_parallel`) have one share together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from wam.contracts import expected
from wam.model.context_parallel import Peers
from wam.model.joint import JointTransformer


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which share of a batch a rank has: number `share` of `shares`."""

    share: int
    shares: int


def take_place(module: nn.Module, accelerator: Accelerator, *, context_parallel: int) -> Place:
    """This rank's place. Neighbouring ranks form groups of `context_parallel`, or of the launcher's cp_size, in which the joint
    transformers inside `module` deal their tokens. Raises WamError where ranks, heads or the stage do not allow it."""
    size = _group_size(context_parallel, accelerator)
    ranks, rank = accelerator.num_processes, accelerator.process_index
    found = [part for part in module.modules() if isinstance(part, JointTransformer)]
    if ranks % size:
        raise expected(
            f"a number of processes that context_parallel={size} divides",
            got=ranks,
            do=f"launch with `torchrun --nproc-per-node {size} --no-python wam train ...`, or set context_parallel=1",
        )
    if size > 1 and not found:
        raise expected(
            "a stage that trains a joint transformer for context_parallel",
            got="none in it",
            do="set context_parallel=1",
        )
    for transformer in found:
        if transformer.heads % size:
            raise expected(
                f"a number of attention heads that context_parallel={size} divides",
                got=transformer.heads,
                do="lower context_parallel, or change model.heads",
            )
    peers = None
    if size > 1:
        mesh = init_device_mesh(accelerator.device.type, (ranks // size, size), mesh_dim_names=("windows", "tokens"))
        peers = Peers(group=mesh.get_group("tokens"), rank=rank % size, ranks=size)
    for transformer in found:
        transformer.peers = peers
    return Place(share=rank // size, shares=ranks // size)


def _group_size(asked: int, accelerator: Accelerator) -> int:
    launched = accelerator.parallelism_config.cp_size if accelerator.parallelism_config else 1
    if asked > 1 and launched > 1 and asked != launched:
        raise expected(
            f"the launcher's cp_size of {launched} as context_parallel",
            got=asked,
            do="name it in one of the two places",
        )
    return max(asked, launched)


def part_number(part: int, place: Place) -> int:
    """The place of this rank's share of a part among all shares of a step."""
    return part * place.shares + place.share


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
