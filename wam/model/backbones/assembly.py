"""Taking a video transformer apart into ends and layers, and back: every weight has one place on either side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from wam.model.backbones.cosmos import CosmosEnds, CosmosLayer
from wam.model.backbones.interface import Ends, Layer
from wam.model.backbones.load import Backbone
from wam.model.backbones.ltx import LtxEnds, LtxLayer
from wam.model.backbones.wan import WanEnds, WanLayer

_FAMILIES: Mapping[str, tuple[type[Ends], type[Layer]]] = {
    "wan": (WanEnds, WanLayer),
    "cosmos": (CosmosEnds, CosmosLayer),
    "ltx": (LtxEnds, LtxLayer),
}


def take_apart(backbone: Backbone) -> tuple[Ends, list[Layer]]:
    """The ends and layers of a backbone, whose network has no blocks from then on."""
    ends_of, layer_of = _FAMILIES[backbone.description.family]
    blocks = cast(Sequence[nn.Module], getattr(backbone.network, ends_of.blocks_at))
    layers = [layer_of(block) for block in blocks]
    setattr(backbone.network, ends_of.blocks_at, nn.ModuleList())
    return ends_of(backbone.network, backbone.description), layers


def put_together(ends: Ends, layers: Iterable[Layer]) -> nn.Module:
    """The diffusers network again, for use by diffusers; it shares its weights with the ends and layers."""
    network = ends.network
    setattr(network, ends.blocks_at, nn.ModuleList(layer.block for layer in layers))
    return network


def original_names(ends: Ends, layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Every weight of the ends and layers by its name in the diffusers network's state."""
    found = dict(ends.network.state_dict())
    for number, layer in enumerate(layers):
        prefix = f"{ends.blocks_at}.{number}."
        found |= {prefix + name: value for name, value in layer.block.state_dict().items()}
    return found
