"""The control: small L1 behaviour cloning. A convolutional encoder, state and text in, a chunk of actions out.

It stands beside every world-action model we train, on the same data and for the same time, because on plain
demonstrations a small cloning network is hard to beat.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam.checkpoint import Checkpoint, code_revision
from wam.contracts import ActionSpace, Batch, expected
from wam.model.normalize import Normalizer
from wam.model.wam import Sample
from wam.settings import build, to_plain
from wam.tokenizers.interface import to_signed
from wam.tokenizers.text import TextConfig, make_text_encoder


@dataclass(kw_only=True)
class CloningConfig:
    """width of the trunk; channels of the first convolution, doubled three times; columns of the state that are read, all
    where none is named; image_size of the pictures it is trained on, 0: not known."""

    width: int = 256
    channels: int = 24
    views: int = 2
    history: int = 1
    image_size: int = 0
    chunk: int = 8
    action_dim: int = 4
    state_dim: int = 4
    columns: list[int] = field(default_factory=list)
    text: TextConfig = field(default_factory=lambda: TextConfig(width=96))


class CloningPolicy(nn.Module):
    """images (B, V, T, H, W, 3), state (B, S), sentences -> actions (B, K, A) by one forward pass."""

    def __init__(self, config: CloningConfig, *, action_space: ActionSpace | None = None) -> None:
        super().__init__()
        self.config, self.action_space = config, action_space
        self.cameras: tuple[str, ...] = ()
        self.provenance: dict[str, Any] = {"random": True}
        c, layers, last = config.channels, [], 3 * config.history
        for outputs in (c, 2 * c, 4 * c, 4 * c):
            layers += [nn.Conv2d(last, outputs, 4, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
            last = outputs
        self.encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.text = make_text_encoder(config.text)
        inputs = config.views * last * 16 + (len(config.columns) or config.state_dim) + config.text.width
        self.trunk = nn.Sequential(
            nn.Linear(inputs, config.width),
            nn.LayerNorm(config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.chunk * config.action_dim),
        )
        self.normalizers = nn.ModuleDict(
            {"action": Normalizer(config.action_dim), "state": Normalizer(config.state_dim)}
        )

    def normalizer(self, name: str) -> Normalizer:
        return self.normalizers[name]  # type: ignore[return-value]

    def forward(self, batch: Batch) -> Tensor:
        """Normalised actions (B, K, A)."""
        B = batch.size
        pictures = to_signed(batch.images).permute(0, 1, 2, 5, 3, 4).flatten(2, 3).flatten(0, 1)
        seen = self.encoder(pictures).reshape(B, -1)
        words, mask = self.text(batch.instruction or ("",) * B)
        sentence = (words * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        if batch.state is None:
            raise expected("windows with a state", got="none", do="clone from data that has observation.state")
        state = self.normalizer("state").normalize(batch.state)
        if batch.state_mask is not None:
            state = state * batch.state_mask
        state = state[:, self.config.columns] if self.config.columns else state
        found = self.trunk(torch.cat([seen, state, sentence], dim=1))
        return found.reshape(B, self.config.chunk, self.config.action_dim)

    def loss(self, batch: Batch) -> Tensor:
        """Mean absolute error of normalised actions over real steps; random play teaches a policy nothing and is left out."""
        assert batch.action is not None
        error = F.l1_loss(self(batch), self.normalizer("action").normalize(batch.action), reduction="none").mean(-1)
        mask = torch.ones_like(error) if batch.action_mask is None else batch.action_mask.float()
        if batch.play is not None:
            mask = mask * (~batch.play).float()[:, None]
        return (error * mask).sum() / mask.sum().clamp_min(1)

    @torch.no_grad()
    def policy(self, batch: Batch, **_: Any) -> Sample:
        return Sample(action=self.normalizer("action").restore(self(batch).float()))

    def save_pretrained(
        self, folder: Path, *, tensors: dict[str, Tensor], cameras: tuple[str, ...], provenance: dict[str, Any]
    ) -> None:
        Checkpoint(
            config={
                "cloning": to_plain(self.config),
                "action_space": self.action_space.to_dict() if self.action_space else None,
                "cameras": list(cameras),
            },
            tensors=tensors,
            provenance={"code": code_revision(), "random": False, **provenance},
        ).save(folder)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> CloningPolicy:
        space = checkpoint.config.get("action_space")
        policy = cls(
            build(CloningConfig, checkpoint.config["cloning"]),
            action_space=ActionSpace.from_dict(space) if space else None,
        )
        policy.load_state_dict(dict(checkpoint.tensors))
        policy.cameras, policy.provenance = tuple(checkpoint.config["cameras"]), dict(checkpoint.provenance)
        return policy.eval()
