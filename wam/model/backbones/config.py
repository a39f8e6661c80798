"""Which pretrained network a stream runs through, and what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wam.contracts import expected

Weights = Literal["pretrained", "tiny", "meta"]


@dataclass(kw_only=True)
class BackboneConfig:
    """name: one of `wam.model.backbones.catalogue` or of `wam.model.backbones.vlm.catalogue`, or a folder or hub name in
    diffusers' format, or a folder in transformers'. weights: `pretrained`;
    `tiny`, random ones of a small network of the same class; `meta`, the full shapes without numbers, to plan with. source: a
    folder or hub name that holds the weights, where that is not the catalogue's.

    frozen: its own weights stay as they came. fps: frames a second of what it is shown, which Cosmos and LTX-Video are told;
    0: what their pipelines assume. layers: of a vision-language model, how many of its first ones; 0: all.
    """

    name: str
    weights: Weights = "pretrained"
    source: str = ""
    revision: str | None = None
    frozen: bool = False
    fps: float = 0.0
    layers: int = 0


@dataclass(kw_only=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021, by peft) beside layers of one stream's experts, whose own weights then stay as
    they are. targets: the ends of the layers' names; none named: queries, keys, values and outputs of attention."""

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.0
    targets: list[str] = field(default_factory=list)

    def validate(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise expected(
                "lora.rank of 1 or more and lora.dropout from 0 to below 1",
                got=f"{self.rank} and {self.dropout}",
                do="mend the stream's `lora`",
            )
