"""The teacher: a trained world-action model, asked for chunks, for what it knows of an observation, and for frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wam.contracts import Batch, expected
from wam.data.mixture import Mixture
from wam.diffusion.clocks import sampling_clocks
from wam.diffusion.samplers import Signals
from wam.distillation.config import TeacherConfig
from wam.files import sha256
from wam.model.context import Context
from wam.model.pretrained import from_pretrained
from wam.model.thought import ThoughtConfig, think
from wam.model.wam import CONTEXT
from wam.training.state import newest_checkpoint


@dataclass(frozen=True, kw_only=True)
class Answers:
    """To N frames. path (N, draws, P + 1, K, A): each chunk on its way from noise, normalised, the chunk itself last; P is 0
    where the way is not wanted. features (N, F) float16: the summaries that modulate its action; None where nothing does.
    thought (N, D) float16: what it hands to a student, where that is more than these."""

    path: Tensor
    features: Tensor | None = None
    thought: Tensor | None = None

    @property
    def size(self) -> int:
        return len(self.path)

    def chunk(self, draw: Tensor) -> Tensor:
        """(N, K, A): of each row the chunk of this draw (N,)."""
        return self.path[torch.arange(self.size), draw, -1]

    @property
    def handed(self) -> Tensor | None:
        """(N, D): what a student is handed."""
        return self.features if self.thought is None else self.thought

    def take(self, rows: Tensor) -> Answers:
        return Answers.of({name: tensor[rows] for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        found = {"path": self.path, "features": self.features, "thought": self.thought}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Answers:
        """What `tensors` gave."""
        return cls(**tensors)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Answers to frames one after the other."""
        names = parts[0].tensors()
        return cls.of({name: torch.cat([part.tensors()[name] for part in parts]) for name in names})


class Teacher:
    """folder: its checkpoint; sha256: of its weights. ways: whether answers hold whole paths. thought: what it hands over."""

    def __init__(self, config: TeacherConfig, *, ways: bool = False, thought: ThoughtConfig | None = None) -> None:
        self.config, self.ways, self.thought = config, ways, thought or ThoughtConfig()
        self.folder = newest_checkpoint(Path(config.run))
        self.model = from_pretrained(self.folder).to("cuda" if torch.cuda.is_available() else "cpu")
        self.sha256 = sha256(self.folder / "model.safetensors")
        if self.model.provenance.get("random"):
            raise expected(f"a trained teacher in {config.run}", got="random weights", do="train it first")
        if "action" not in self.model.config.streams:
            raise expected(
                f"a teacher that acts in {config.run}",
                got=f"one of {', '.join(self.model.config.streams)}",
                do="post-train it on episodes with actions",
            )
        if self.thought.kind != "none" and self.model.config.history > 1:
            raise expected(
                "a teacher that acts on one frame, since it thinks too seldom to look back",
                got=f"one that looks back over {self.model.config.history}",
                do="set student.thought.kind=none",
            )
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    @property
    def chunk(self) -> int:
        return self.model.config.chunk

    @property
    def clocks(self) -> Tensor:
        """(P + 1,): of the points of a path."""
        clock = self.model.config.streams["action"].clock
        return sampling_clocks(self.config.steps, shift=clock.sampling_shift or clock.shift)

    def thought_dim(self, mixture: Mixture) -> int:
        """D of what it hands over, asked of one window."""
        seen = mixture.batch(np.zeros((1, 2), np.int64)).without("action", "action_mask", "future", "future_mask")
        return think(self.model, seen.to(self.device), kind=self.thought.kind, steps=self.thought.steps).shape[1]

    @property
    def provenance(self) -> dict[str, Any]:
        return {"checkpoint": str(self.folder), "sha256": self.sha256, "step": self.model.provenance.get("step")}

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on beside the frames."""
        c = self.config
        asked = {"steps": c.steps, "draws": c.draws, "batch_size": c.batch_size}
        goal = {"goal": self.thought.steps} if self.thought.kind == "goal" else {}
        return {"teacher": self.sha256, **asked, "ways": self.ways, **goal}

    @torch.no_grad()
    def answer(self, batch: Batch, *, seed: int) -> Answers:
        """In parts of `batch_size`, so that memory stays bounded; a row's noise depends on the seed and its place."""
        return Answers.joined(
            [
                self._answer(batch[first : first + self.config.batch_size], seed=seed + first)
                for first in range(0, batch.size, self.config.batch_size)
            ]
        )

    def _answer(self, batch: Batch, *, seed: int) -> Answers:
        draws, home = self.config.draws, batch.images.device
        asked = batch.without("action", "action_mask", "future", "future_mask").to(self.device)
        context = self.model.context(asked)
        path: list[Signals] = []
        rows = torch.arange(batch.size).repeat_interleave(draws)
        self.model.policy(
            asked[rows.tolist()], steps=self.config.steps, seed=seed, context=context.expand(draws), path=path
        )
        chunks = torch.stack([point["action"].float() for point in (path if self.ways else path[-1:])], dim=1)
        known = self.model.network.table.modulators("action", context.summaries)
        features = torch.cat([context.summaries[s][:, 0] for s in known], dim=1).half().to(home) if known else None
        return Answers(
            path=chunks.unflatten(0, (batch.size, draws)).to(home),
            features=features,
            thought=self._think(asked, context, home),
        )

    def _think(self, asked: Batch, context: Context, home: torch.device) -> Tensor | None:
        if self.thought.kind != "goal":
            return None  # the features are the thought
        return think(self.model, asked, kind="goal", steps=self.thought.steps, context=context).half().to(home)

    @torch.no_grad()
    def imagine(self, batch: Batch, *, steps: int, seed: int) -> Tensor:
        """(B, V, 1, H, W, 3) uint8: the last frame to come under the batch's actions (B, K, A), of which those that the teacher
        looks at are read."""
        if "future" not in self.model.config.streams or self.model.config.history > 1 or batch.action is None:
            raise expected(
                "a teacher that foresees frames and acts on one, and windows with actions, for the loss `imagined`",
                got=f"streams {', '.join(self.model.config.streams)} and history {self.model.config.history}",
                do="give `imagined` weight 0",
            )
        batch = batch.replace(action=batch.action[:, : self.chunk], action_mask=None).to(self.device)
        found = self.model.sample(batch, given=(*CONTEXT, "action"), want=("future",), steps=steps, seed=seed).future
        assert found is not None
        return (found[:, :, -1:] * 255).round().to(torch.uint8).to("cpu")

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def fingerprint(identity: dict[str, Any]) -> str:
    """Sixteen letters that differ where what was asked differs."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
