"""A network whose weights, gradients and optimizer state are spread over the ranks (FSDP2), applied from outside.

The unit is a layer of the joint transformer with the experts of all its streams, gathered once for each pass through it; what
is beside the layers (stems, heads, ends) is one unit more. The layers of pretrained backbones are experts like any others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from wam.contracts import expected
from wam.model.joint import JointLayer, JointTransformer


def wants_shards(sharding: str, accelerator: Accelerator) -> bool:
    """Does the run's config or the launcher's ask for shards?"""
    asked = sharding == "fsdp2" or accelerator.is_fsdp2
    if asked and accelerator.num_processes == 1 and not torch.distributed.is_initialized():
        raise expected(
            "several processes to shard over",
            got="one",
            do="launch with `torchrun --nproc-per-node N --no-python wam train ...`, or set sharding=none",
        )
    return asked


def shard(losses: nn.Module, accelerator: Accelerator, *, precision: str) -> None:
    """Spread the weights of `losses`, whose forward pass is the step's, over all ranks; its parameters become DTensors.

    bf16: the layers are gathered in bf16, half the traffic; gradients are summed in float32, and the weights stay in it.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    told = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else None
    shared: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": True if told is None else told.reshard_after_forward,
        "offload_policy": OffloadPolicy() if told is None else told.cpu_offload,
    }
    for parameter in losses.parameters():
        if parameter.numel() == 0:  # such as no soft prompts: there is nothing to exchange
            parameter.requires_grad_(False)
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    losses.to(accelerator.device)
    for module in losses.modules():
        if isinstance(module, JointTransformer):
            for layer in module.steps:
                assert isinstance(layer, JointLayer)
                fully_shard([layer, *layer.experts.values()], mp_policy=policy, **shared)
                register_fsdp_forward_method(layer, "run")
    fully_shard(losses, **shared)


def spread_again(losses: nn.Module) -> None:
    """Give back the weights that a forward pass without a backward pass left gathered."""
    for module in losses.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_sharded(tensors: Mapping[str, Tensor]) -> bool:
    return any(isinstance(value, DTensor) for value in tensors.values())


def whole(tensors: Mapping[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
    """Each tensor in one piece, on the CPU. Every rank has to ask, and those that do not `keep` them get none."""
    found = {}
    for name, value in tensors.items():
        piece = value
        if isinstance(value, DTensor):
            piece = value.full_tensor() if value.numel() else value.to_local().new_empty(value.shape)
        if keep:
            found[name] = piece.detach().cpu()
    return found


def laid_out(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, equal on every rank, spread as their namesakes in `like` are."""
    found = {}
    for name, value in tensors.items():
        shape = like.get(name)
        if isinstance(shape, DTensor) and shape.shape == value.shape:
            value = distribute_tensor(
                value.to(shape.device), shape.device_mesh, shape.placements, src_data_rank=None
            )  # every rank cuts its own piece out
        found[name] = value
    return found


def optimizer_like(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The parameters, by the names that AdamW's tensors of them have in a checkpoint (`flatten_optimizers`)."""
    return {
        f"{number}.{index}.{name}": parameter
        for number, optimizer in enumerate(optimizers)
        for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"])
        for name in ("exp_avg", "exp_avg_sq")
    }


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Every rank writes its own pieces into the folder, as safetensors; no weight is ever in one place."""
    import torch.distributed.checkpoint as checkpoint
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    folder.mkdir(parents=True, exist_ok=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    pieces = {name: value.detach() for name, value in tensors.items() if value.numel()}
    checkpoint.save(pieces, storage_writer=writer)


def read_shards(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What any number of ranks wrote, each tensor spread as its namesake in `like` is, or whole."""
    import torch.distributed.checkpoint as checkpoint
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    kept = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    found: dict[str, Tensor] = {}
    for name, about in kept.items():
        assert isinstance(about, TensorStorageMetadata)
        near = like.get(name)
        dtype = about.properties.dtype
        if isinstance(near, DTensor) and near.shape == about.size:
            found[name] = torch.zeros_like(near, dtype=dtype)
        else:
            found[name] = torch.empty(about.size, dtype=dtype)
    alone = not torch.distributed.is_initialized()
    checkpoint.load(found, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)
    return {**{name: value for name, value in like.items() if name not in found and not value.numel()}, **found}
