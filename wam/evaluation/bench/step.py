"""What joining streams costs: our transformer against a plain one of the same tokens, width, depth and heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam.evaluation.bench.sampling import make_model
from wam.evaluation.bench.timing import BenchResult, Target, default_device, time_in_turns
from wam.model.attention import attend
from wam.model.config import ModelConfig
from wam.model.expert import NativeExpert, Rotary
from wam.model.joint import JointTransformer, StreamInput
from wam.model.network import JointNetwork
from wam.model.rope import chunk_positions, rotary_table
from wam.model.synthetic import synthetic_batch


class PlainTransformer(nn.Module):
    """The same adaLN blocks over one sequence with full attention: one set of weights, no streams, no mask."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            NativeExpert(
                width=config.width,
                heads=config.heads,
                head_dim=config.head_dim,
                condition_width=config.condition_width,
                mlp_ratio=config.streams["future"].mlp_ratio,
            )
            for _ in range(config.depth)
        )

    def forward(self, h: Tensor, condition: Tensor, rotary: Rotary) -> Tensor:
        """h (B, L, D), condition (B, 1, condition width)."""
        condition = F.silu(condition)
        for block in self.blocks:
            assert isinstance(block, NativeExpert)
            modulation = block.modulation(condition)
            h = block.update(h, attend(*block.qkv(h, modulation, rotary)), modulation)
        return h


def stream_inputs(network: JointNetwork, batch_size: int, device: torch.device) -> dict[str, StreamInput]:
    """Random tokens at the transformer's door, with the lengths, conditions and positions that the model gives them."""
    caught: dict[str, StreamInput] = {}

    def note(module: nn.Module, args: tuple[dict[str, StreamInput], object]) -> None:
        caught.update(args[0])

    hook = network.transformer.register_forward_pre_hook(note)
    batch = synthetic_batch(network.config, batch_size).to(device)
    assert batch.future is not None
    with torch.no_grad():
        context = network.context(batch)
        signals = {"future": network.encode_future(batch.images, batch.future), "action": batch.action}
        network.denoise(
            context,
            {s: x for s, x in signals.items() if x is not None},
            dict.fromkeys(signals, torch.full((batch_size,), 0.5, device=device)),
        )
    hook.remove()
    return {
        s: StreamInput(
            h=torch.randn_like(x.h).requires_grad_(),
            condition=torch.randn_like(cast(Tensor, x.condition).expand(batch_size, -1, -1)).requires_grad_(),
            rotary=x.rotary,
            frames=x.frames,
        )
        for s, x in caught.items()
    }


def bench_step(
    *,
    config: ModelConfig | None = None,
    batch_size: int = 42,
    precisions: Sequence[str] = ("bf16", "fp32"),
    repeats: int = 21,
    device: torch.device | None = None,
) -> BenchResult:
    """step_ratio: forward and backward of all streams through the joint transformer over the plain one, in the first of
    `precisions` (training's default); the others stand in the detail. batch_size: the windows with video of a step of the
    demo; fewer cost more each, since every stream has its own calls."""
    device = device or default_device()
    model = make_model(config, device)
    network, c = model.network, model.config
    inputs = stream_inputs(network, batch_size, device)
    joint = network.transformer.train()
    plain = PlainTransformer(c).to(device).train()
    tokens = sum(x.h.shape[1] for x in inputs.values())
    h = torch.randn(batch_size, tokens, c.width, device=device, requires_grad=True)
    condition = torch.randn(batch_size, 1, c.condition_width, device=device, requires_grad=True)
    rotary = rotary_table(chunk_positions(torch.arange(tokens)).to(device), c.head_dim)
    detail = {}
    for precision in precisions:
        timings = time_in_turns(
            {
                "joint": _step(joint, lambda: _joined(joint, inputs, network), precision, device),
                "plain": _step(plain, lambda: plain(h, condition, rotary), precision, device),
            },
            repeats=repeats,
            device=device,
        )
        detail[precision] = timings.compare("joint", "plain")
    return BenchResult(
        name="step",
        figures={"step_ratio": detail[precisions[0]]["ratio"]},
        detail={
            "precision": precisions[0],
            "batch_size": batch_size,
            "tokens": {s: x.h.shape[1] for s, x in inputs.items()},
            "width": c.width,
            "depth": c.depth,
            "heads": c.heads,
            **detail,
        },
        n=repeats,
        targets={"step_ratio": Target(value=1.15, at_least=False)},
    )


def _joined(joint: JointTransformer, inputs: dict[str, StreamInput], network: JointNetwork) -> Tensor:
    return torch.cat(list(joint(inputs, network.table)[0].values()), dim=1)


def _step(module: nn.Module, forward: Callable[[], Tensor], precision: str, device: torch.device) -> Callable[[], None]:
    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            out = forward()
        out.float().square().mean().backward()
        for parameter in module.parameters():
            parameter.grad = None

    return step
