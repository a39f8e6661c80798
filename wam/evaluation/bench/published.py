"""Training runs whose memory or throughput their authors published, as workloads for the plan's arithmetic.

Each network is built from its published shape on the meta device and counted as `wam plan` counts. The roofline's shares were
written after MPT's table was read and before anything was planned; that a node's cards share its network was put in after
MPT-13B on 64 of them was seen to be far off, so that row is no test. MPT's shapes are those of its public configs, from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from wam.training.cluster import Workload
from wam.training.count import flops_of, kept_bytes

MPT = "mosaicml/llm-foundry, scripts/train/benchmarking/README.md, table H100 80GB BF16"
TITAN = "pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md"
TUNERS = "a-r-r-o-w/finetrainers, docs/training"
NANO = "karpathy/nanoGPT, README.md and config/train_gpt2.py"


@dataclass(frozen=True, kw_only=True)
class Published:
    """windows: on each of `count` accelerators, in each of `accumulate` parts of a step. memory: GiB on one;
    windows_a_second: of all together."""

    system: str
    model: str
    source: str
    work: Callable[[], Workload]
    device: str
    strategy: str
    count: int
    windows: int
    accumulate: int = 1
    memory: float | None = None
    windows_a_second: float | None = None


# ---------------------------------------------------------------- networks


@cache
def gpt(width: int, depth: int, heads: int, *, tokens: int, vocabulary: int, checkpointing: bool = False) -> Workload:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=width,
        n_layer=depth,
        n_head=heads,
        n_positions=tokens,
        vocab_size=vocabulary,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    return language_model(GPT2LMHeadModel, config, depth=depth, tokens=tokens, checkpointing=float(checkpointing))


@cache
def llama_8b(*, tokens: int, checkpointing: float) -> Workload:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=tokens,
        use_cache=False,
    )
    return language_model(LlamaForCausalLM, config, depth=32, tokens=tokens, checkpointing=checkpointing)


def language_model(kind: Any, config: Any, *, depth: int, tokens: int, checkpointing: float) -> Workload:
    """With the loss of the next token. checkpointing: share of what the layers would keep that is computed again instead."""
    with torch.device("meta"):
        network = kind(config).to(torch.bfloat16).train()
    words = torch.empty(1, tokens, dtype=torch.long, device="meta")
    seen = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device="meta")  # a mask that it does not look into

    def loss() -> Tensor:
        return network(input_ids=words, attention_mask=seen, labels=words).loss

    return counted(network, loss, depth=depth, checkpointing=checkpointing)


@cache
def ltx_video(frames: int, height: int, width: int) -> Workload:
    """All of it trained in bfloat16, checkpointed."""
    from wam.model.backbones.load import load_backbone

    network = load_backbone("ltx-video", "meta").network.to(torch.bfloat16).train()
    grid = ((frames - 1) // 8 + 1, height // 32, width // 32)
    tokens = grid[0] * grid[1] * grid[2]
    inputs = {
        "hidden_states": _empty(1, tokens, 128),
        "encoder_hidden_states": _empty(1, 128, 4096),
        "timestep": _empty(1),
        "encoder_attention_mask": None,
        "num_frames": grid[0],
        "height": grid[1],
        "width": grid[2],
        "rope_interpolation_scale": (1.0, 32.0, 32.0),
    }
    return counted(network, lambda: network(**inputs).sample.float().mean(), depth=28, checkpointing=1.0, **LOW)


@cache
def hunyuan_video(frames: int, height: int, width: int, rank: int) -> Workload:
    """Frozen, with adapters on the maps of attention, in bfloat16, checkpointed."""
    import peft
    from diffusers import HunyuanVideoTransformer3DModel

    with torch.device("meta"):
        made: Any = HunyuanVideoTransformer3DModel
        network = made().to(torch.bfloat16).train().requires_grad_(False)
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), network)
    network.to(torch.bfloat16)
    inputs = {
        "hidden_states": _empty(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8),
        "timestep": _empty(1),
        "encoder_hidden_states": _empty(1, 256, 4096),
        "encoder_attention_mask": torch.ones(1, 256, dtype=torch.bool, device="meta"),
        "pooled_projections": _empty(1, 768),
        "guidance": _empty(1),
    }
    return counted(network, lambda: network(**inputs).sample.float().mean(), depth=60, checkpointing=1.0, **LOW)


LOW: Mapping[str, Any] = {"weight": 2, "gradient": 2, "moment": 2, "half": False}
"""Weights, gradients and moments in 16 bits."""


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


def counted(
    network: nn.Module, loss: Callable[[], Tensor], *, depth: int, checkpointing: float, **bytes_each: Any
) -> Workload:
    """Count one window. What checkpointing saves lies between what is kept with all of it and with none."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    parameters = sum(p.numel() for p in network.parameters())
    whole = kept_bytes(loss, but=network)
    flops, kept, inside = flops_of(loss), float(whole), 0.0
    if checkpointing:
        switch: Any = network
        if hasattr(switch, "gradient_checkpointing_enable"):
            switch.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            switch.enable_gradient_checkpointing()
        least = kept_bytes(loss, but=network)
        kept, inside = whole + checkpointing * (least - whole), checkpointing * (whole - least) / depth
        flops *= 1 + checkpointing / 3
    largest = max(
        (sum(p.numel() for p in block.parameters()) for part in network.modules() if isinstance(part, nn.ModuleList)
         for block in part),
        default=0,
    )  # fmt: skip
    layered = sum(
        p.numel()
        for part in network.modules()
        if isinstance(part, nn.ModuleList) and len(part) > 8
        for p in part.parameters()
    )
    return Workload(
        parameters=parameters,
        trainable=trainable,
        averaged=0,
        layer=largest,
        beside=max(0, parameters - layered),
        companions=0,
        flops=flops,
        activations=kept,
        inside=inside,
        passed=float(whole),
        **bytes_each,
    )


# ---------------------------------------------------------------- rows


def mpt(
    size: str, shape: tuple[int, int, int], count: int, windows: int, parts: int, rate: float, again: bool
) -> Published:
    """rate: tokens a second on each accelerator. again: with activation checkpointing."""
    return Published(
        system="MPT, llm-foundry",
        model=size,
        source=MPT,
        work=lambda: gpt(*shape, tokens=2048, vocabulary=50368, checkpointing=again),
        device="h100",
        strategy="fsdp2",
        count=count,
        windows=windows,
        accumulate=parts,
        windows_a_second=rate * count / 2048,
    )


PUBLISHED = (
    # every row of 2048 tokens on 8 or 64 accelerators
    mpt("70b", (8192, 80, 64), 64, 8, 4, 1039, True),
    mpt("30b", (7168, 48, 56), 8, 3, 21, 2002, True),
    mpt("13b", (5120, 40, 40), 64, 2, 1, 4800, False),
    mpt("13b", (5120, 40, 40), 8, 2, 1, 4792, False),
    mpt("7b", (4096, 32, 32), 8, 6, 1, 10643, False),
    mpt("3b", (2560, 32, 20), 64, 6, 3, 22525, False),
    mpt("1b", (2048, 24, 16), 64, 20, 1, 44402, False),
    mpt("1b", (2048, 24, 16), 8, 14, 1, 45455, False),
    mpt("760m", (1536, 24, 12), 8, 24, 2, 63147, False),
    # selective checkpointing, taken as half of the full
    Published(
        system="Llama 3.1, torchtitan",
        model="8b",
        source=f"{TITAN}, table 1, FSDP",
        work=lambda: llama_8b(tokens=8192, checkpointing=0.5),
        device="h100",
        strategy="fsdp2",
        count=8,
        windows=2,
        memory=82.4,
        windows_a_second=8 * 5762 / 8192,
    ),
    Published(
        system="Llama 3.1, torchtitan",
        model="8b",
        source=f"{TITAN}, table 3, FSDP",
        work=lambda: llama_8b(tokens=8192, checkpointing=0.5),
        device="h100",
        strategy="fsdp2",
        count=128,
        windows=2,
        memory=67.0,
        windows_a_second=128 * 5605 / 8192,
    ),
    Published(
        system="LTX-Video, finetrainers",
        model="2b, all of it trained",
        source=f"{TUNERS}/ltx_video.md, full finetuning, max_memory_reserved after epoch 1",
        work=lambda: ltx_video(49, 512, 768),
        device="h100",
        strategy="ddp",
        count=1,
        windows=1,
        memory=20.357,
    ),
    Published(
        system="HunyuanVideo, finetrainers",
        model="13b, adapters",
        source=f"{TUNERS}/hunyuan_video.md, LoRA with precomputation, max_memory_reserved after epoch 1",
        work=lambda: hunyuan_video(49, 512, 768, 128),
        device="h100",
        strategy="ddp",
        count=1,
        windows=1,
        memory=42.387,
    ),
    # 300 billion tokens in about four days
    Published(
        system="GPT-2, nanoGPT",
        model="124m",
        source=NANO,
        work=lambda: gpt(768, 12, 12, tokens=1024, vocabulary=50304),
        device="a100",
        strategy="ddp",
        count=8,
        windows=12,
        accumulate=5,
        windows_a_second=600_000 * 480 / (4 * 86400),
    ),
)
