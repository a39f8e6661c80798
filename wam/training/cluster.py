"""What a training step takes on one accelerator or on many: memory on each under every way to spread a model, and windows a
second from a roofline. Arithmetic alone: nothing here is measured.

| strategy | on every accelerator | over all of them |
|---|---|---|
| `ddp` | weights, gradients, moments, averages | - |
| `zero2` | weights in 16 bits | the same four (FSDP2 that keeps what it gathered until the backward pass) |
| `zero3`, `fsdp2` | two layers in 16 bits | the same (FSDP2; ZeRO-3 holds the same in the same places) |
| `offload` | two layers in 16 bits | in the hosts' memory, where the optimizer steps too |

Activations, frozen companions (text encoder, VAE) and what lies beside the layers are on every accelerator.
"""

from __future__ import annotations

from dataclasses import dataclass

from wam.training.hardware import BANDWIDTH_SHARE, HOST_BANDWIDTH, PEAK_SHARE, TO_HOST, Accelerator

STRATEGIES = ("ddp", "fsdp2", "zero2", "zero3", "offload")
CONTEXT = 1.0e9
"""Bytes that the driver, its kernels and the buffers of collective operations take."""
TRAFFIC = 4.0
"""Reads and writes of memory beside matrix products for each byte that is kept for the backward pass."""
HALF = 2


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model and its training, in numbers.

    parameters: of the network, trainable: of those; averaged: of those, how many have a running average. layer: of the
    largest unit that is gathered at once; beside: outside the layers. companions: frozen parameters beside the network.
    weight, gradient, moment: bytes of one number; moments: numbers for each parameter. flops: of one window forward and
    backward, with what checkpointing computes again. activations: bytes of one window kept for the backward pass; inside:
    bytes of one window that one layer needs while it is computed again, 0 without checkpointing. passed: bytes that a
    window writes on its way (activations before checkpointing), for the memory's side of the roofline.
    """

    parameters: float
    trainable: float
    averaged: float
    layer: float
    beside: float
    companions: float
    flops: float
    activations: float
    inside: float
    passed: float
    weight: int = 4
    gradient: int = 4
    moment: int = 4
    moments: int = 2
    half: bool = True


def memory(work: Workload, strategy: str, *, count: int, windows: float) -> dict[str, float]:
    """Bytes on each of `count` accelerators with `windows` each, by what they hold."""
    spread = {"ddp": 1, "offload": float("inf")}.get(strategy, count)
    copies = HALF if work.half and work.weight > HALF else 0
    gathered = {
        "ddp": copies * work.parameters,  # autocast keeps a copy of each weight for the step
        "zero2": HALF * work.parameters,
    }.get(strategy, 2 * HALF * work.layer + work.weight * work.beside)
    if strategy != "ddp" and count == 1 and strategy != "offload":
        gathered = copies * work.parameters
    return {
        "weights": work.weight * work.parameters / spread,
        "gathered": gathered,
        "gradients": work.gradient * work.trainable / spread,
        "optimizer": work.moment * work.moments * work.trainable / spread,
        "averaged copy": work.weight * work.averaged / spread,
        "companions": work.weight * work.companions,
        "activations": (work.activations + work.inside) * windows,
        "context": CONTEXT,
    }


def step_seconds(
    work: Workload, device: Accelerator, strategy: str, *, count: int, windows: float, accumulate: int = 1
) -> float:
    """Of one optimizer step, on `count` accelerators with `windows` each in every part. Traffic between accelerators hides
    behind arithmetic as far as there is any."""
    compute = windows * work.flops / (device.peak * PEAK_SHARE)
    moved = windows * TRAFFIC * work.passed + 3 * HALF * work.parameters
    compute += moved / (device.bandwidth * BANDWIDTH_SHARE)
    link = device.between(count)
    share = (count - 1) / count
    reduced = share * work.gradient * work.trainable
    weights = share * HALF * work.parameters
    if strategy == "ddp":
        parts, once = 0.0, 2 * reduced / link
    elif strategy == "zero2":
        parts, once = (weights + reduced) / link, 0.0
    else:
        parts, once = (2 * weights + reduced) / link, 0.0
    spread = 1 if strategy == "ddp" else count
    stepped = work.trainable * (2 * work.weight + work.gradient + 2 * work.moments * work.moment)
    stepped = (stepped + 2 * work.weight * work.averaged) / spread
    if strategy == "offload":
        parts = max(parts, (2 * HALF * work.parameters / count + work.gradient * work.trainable / count) / TO_HOST)
        step = stepped / HOST_BANDWIDTH
    else:
        step = stepped / (device.bandwidth * BANDWIDTH_SHARE)
    return accumulate * max(compute, parts) + max(0.0, once - compute / 2) + step


def windows_that_fit(work: Workload, device: Accelerator, strategy: str, *, count: int, most: int) -> int:
    """The largest power of two, up to `most`, of windows on each accelerator; 0 where not even one fits."""
    fits, windows = 0, 1
    while windows <= most:
        if sum(memory(work, strategy, count=count, windows=windows).values()) > device.usable:
            break
        fits, windows = windows, 2 * windows
    return fits


def samples_per_second(work: Workload, device: Accelerator, strategy: str, *, count: int, windows: float) -> float:
    return count * windows / step_seconds(work, device, strategy, count=count, windows=windows)
