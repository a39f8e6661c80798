"""Accelerators by name, by their makers' data sheets, and what share of that a training run gets.

The shares are round numbers for all systems and all accelerators; `wam bench plan` shows what they miss.
"""

from __future__ import annotations

from dataclasses import dataclass

from wam.contracts import expected

PEAK_SHARE = 0.55
"""Of the peak, that large matrix products reach between kernel launches, ragged shapes and power limits."""
BANDWIDTH_SHARE = 0.8
LINK_SHARE = 0.7
NODE = 8
"""Accelerators in a node."""
TO_HOST = 25e9
"""Bytes a second between an accelerator and its host's memory (PCIe 4 x16)."""
HOST_BANDWIDTH = 100e9
"""Bytes a second of the host's memory, for each accelerator's share of an optimizer's step there."""
KEPT_FREE = 0.06
"""Of an accelerator's memory: what the driver holds and what fragments."""


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """memory in bytes. peak: bf16, dense, in operations a second. bandwidth: of its memory, link: to its neighbours in the
    node, network: its share of its node's cards to other nodes, each in bytes a second and one direction."""

    name: str
    memory: float
    peak: float
    bandwidth: float
    link: float
    network: float

    def between(self, count: int) -> float:
        """Bytes a second that a collective operation over `count` of them moves past each: what enters a node enters it once,
        through all of its cards, and is handed on inside."""
        slowest = self.link if count <= NODE else min(self.link, NODE * self.network)
        return slowest * LINK_SHARE

    @property
    def usable(self) -> float:
        return self.memory * (1 - KEPT_FREE)


ACCELERATORS = {
    one.name: one
    for one in (
        Accelerator(name="a100", memory=80 * 2**30, peak=312e12, bandwidth=2.04e12, link=300e9, network=25e9),
        Accelerator(name="h100", memory=80 * 2**30, peak=989e12, bandwidth=3.35e12, link=450e9, network=50e9),
        Accelerator(name="h200", memory=141e9, peak=989e12, bandwidth=4.8e12, link=450e9, network=50e9),
        Accelerator(name="l40s", memory=48 * 2**30, peak=362e12, bandwidth=0.864e12, link=25e9, network=12.5e9),
        Accelerator(name="4090", memory=24 * 2**30, peak=165e12, bandwidth=1.01e12, link=25e9, network=1.6e9),
        Accelerator(name="b200", memory=180e9, peak=2250e12, bandwidth=7.7e12, link=900e9, network=50e9),
    )
}


def accelerator(name: str) -> Accelerator:
    if name.lower() not in ACCELERATORS:
        raise expected(f"an accelerator among {', '.join(ACCELERATORS)}", got=repr(name), do="name one of them")
    return ACCELERATORS[name.lower()]
