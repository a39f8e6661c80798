"""Is the wrapped network the original? The same latents, clocks and text through both, the joint transformer on one side.

The original is diffusers' own forward pass of a network of the same weights; the wrapped one runs its layers as the experts
of a lone stream. Time steps are given as the family's pipelines give them: one for all frames, or one for each.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.model.backbones.assembly import take_apart
from wam.model.backbones.interface import Ends
from wam.model.backbones.load import Backbone, Description
from wam.model.joint import JointTransformer, StreamInput
from wam.model.visibility import VisibilityTable

ALONE = VisibilityTable(sees={"future": {"future": "yes"}})


@dataclass(frozen=True, kw_only=True)
class Example:
    """latents (B, c, T, h, w) at clocks (B, 1 or T); text features (B, L, text_width) with mask (B, L); picture features
    (B, M, image_width) and guide (B, c, T, h, w), where the network takes them."""

    latents: Tensor
    clocks: Tensor
    features: Tensor
    mask: Tensor
    picture: Tensor | None = None
    guide: Tensor | None = None


def draw_example(
    known: Description, *, size: int, shape: tuple[int, int, int], per_frame: bool, seed: int = 0
) -> Example:
    """Noise. shape: frames, height and width of the latents. per_frame: a first frame that is given, the others noisy, each
    at a clock of its own."""
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(size, known.latent_channels, *shape, generator=g)
    clocks = 0.05 + 0.95 * torch.rand(size, shape[0] if per_frame else 1, generator=g)
    if per_frame:
        clocks[:, 0] = 0
    lengths = torch.randint(1, 8, (size, 1), generator=g)
    return Example(
        latents=latents,
        clocks=clocks,
        features=torch.randn(size, 7, known.text_width, generator=g),
        mask=torch.arange(7) < lengths,
        picture=torch.randn(size, 5, known.image_width, generator=g) if known.image_width else None,
        guide=torch.randn(latents.shape, generator=g) if known.guided else None,
    )


class Wrapped(nn.Module):
    """A backbone taken apart, as the lone stream of a joint transformer."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        known = backbone.description
        self.ends, layers = take_apart(backbone)
        self.transformer = JointTransformer(
            widths={},
            depth=known.layers,
            heads=known.heads,
            head_dim=known.head_dim,
            condition_width=1,
            mlp_ratios={},
            pretrained={"future": layers},
        )

    def forward(self, example: Example) -> Tensor:
        ends = self.ends
        prompt = ends.read(example.features, example.mask, example.picture)
        if example.guide is not None:
            prompt = replace(prompt, guide=example.guide)
        told, grid = ends.tell(example.clocks, prompt), ends.grid(example.latents)
        h = ends.embed(example.latents, example.clocks.expand(-1, example.latents.shape[2]), prompt)
        rotary = ends.rotary(grid, start=0, device=h.device)
        out, _ = self.transformer({"future": StreamInput(h=h, condition=told, rotary=rotary)}, ALONE)
        return ends.predict(out["future"], told, grid)


def original_forward(backbone: Backbone, example: Example) -> Tensor:
    """diffusers' own forward pass; the backbone must not have been taken apart."""
    known, network = backbone.description, backbone.network
    features, mask = _padded(known, example)
    call = {"wan": _wan, "cosmos": _cosmos, "ltx": _ltx}[known.family]
    return call(network, known, example, features, mask)


def _padded(known: Description, example: Example) -> tuple[Tensor, Tensor]:
    holder: Any = SimpleNamespace(description=known)
    return Ends.padded(holder, example.features, example.mask)


def _per_token(known: Description, example: Example) -> Tensor:
    """Time steps (B,), or (B, L) where each frame has its own."""
    clocks = example.clocks * known.clock_scale
    if clocks.shape[1] == 1:
        return clocks[:, 0]
    h, w = (side // patch for side, patch in zip(example.latents.shape[3:], known.patch[1:], strict=True))
    return clocks.repeat_interleave(h * w, dim=1)


def _wan(network: Any, known: Description, example: Example, features: Tensor, mask: Tensor) -> Tensor:
    latents = example.latents
    if example.guide is not None:
        shown = torch.zeros_like(latents[:, :4])
        shown[:, :, 0] = 1
        latents = torch.cat([latents, shown, example.guide], dim=1)
    return network(latents, _per_token(known, example), features, example.picture, return_dict=False)[0]


def _ltx(network: Any, known: Description, example: Example, features: Tensor, mask: Tensor) -> Tensor:
    frames, height, width = example.latents.shape[2:]
    out = network(
        rearrange(example.latents, "b c t h w -> b (t h w) c"),
        features,
        _per_token(known, example),
        mask,
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=(known.temporal / known.fps, float(known.spatial), float(known.spatial)),
        return_dict=False,
    )[0]
    return rearrange(out, "b (t h w) c -> b c t h w", t=frames, h=height)


def _cosmos(network: Any, known: Description, example: Example, features: Tensor, mask: Tensor) -> Tensor:
    clocks, shape = example.clocks, example.latents.shape
    each = clocks if clocks.shape[1] > 1 else clocks.expand(-1, shape[2])
    given = (each == 0).float()[:, None, :, None, None].expand(-1, 1, *shape[2:])
    with torchvision_or_resize():
        return network(
            example.latents,
            clocks[:, 0] if clocks.shape[1] == 1 else clocks[:, None, :, None, None],
            features,
            fps=known.fps or None,
            condition_mask=given if network.config.in_channels > network.config.out_channels else None,
            padding_mask=torch.zeros(1, 1, 8 * shape[3], 8 * shape[4], device=given.device),
            return_dict=False,
        )[0]


@contextlib.contextmanager
def torchvision_or_resize() -> Iterator[None]:
    """diffusers' Cosmos shrinks its padding mask by torchvision, whose nearest-neighbour resize of a tensor is torch's own;
    where torchvision is not installed, torch's stands in for it."""
    from diffusers.models.transformers import transformer_cosmos as module

    if hasattr(module, "transforms"):
        yield
        return

    def resize(picture: Tensor, size: list[int], interpolation: str) -> Tensor:
        return F.interpolate(picture, size=size, mode=interpolation)

    stand_in = SimpleNamespace(
        functional=SimpleNamespace(resize=resize), InterpolationMode=SimpleNamespace(NEAREST="nearest")
    )
    module.transforms = stand_in
    try:
        yield
    finally:
        del module.transforms


@torch.no_grad()
def difference(backbone: Backbone, example: Example) -> float:
    """Largest absolute difference of the two predictions; a copy of the backbone is taken apart."""
    original = original_forward(backbone, example)
    wrapped = Wrapped(copy.deepcopy(backbone)).eval()(example)
    assert original.shape == wrapped.shape
    return float((original - wrapped).abs().max())
