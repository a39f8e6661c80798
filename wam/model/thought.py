"""A thought: what a slow world-action model hands to a fast policy that acts many times until the next one (Helix, Figure 2025;
GR00T N1, NVIDIA 2025: one network at 1 to 10 Hz, the other at the rate of control).

`context` is what modulates the model's own action: its summaries of text, state and observation, computed in one pass.
`goal` adds its summary of the last frame that it imagines. A thought is of a frame that is over when it comes, so the fast
policy is told its age, and takes one that is too old for none at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.model.context import Context
from wam.model.wam import WorldActionModel

Kind = Literal["none", "context", "goal"]


@dataclass(kw_only=True)
class ThoughtConfig:
    """What a student is handed. max_age: ticks of the control loop after which a thought counts for nothing, and up to which
    training hands it thoughts of earlier frames, every age as often. dropout: windows to which training hands none. steps: of
    imagining the frame of `goal`. dim: D of a thought; training fills it in."""

    kind: Kind = "none"
    max_age: int = 30
    dropout: float = 0.2
    steps: int = 1
    dim: int = 0

    def validate(self) -> None:
        if self.max_age < 1 or self.steps < 1 or not 0 <= self.dropout <= 1:
            raise expected(
                "student.thought with max_age and steps of 1 or more and a dropout from 0 to 1",
                got=f"{self.max_age}, {self.steps} and {self.dropout}",
                do="mend it",
            )


@dataclass(frozen=True, kw_only=True)
class Thought:
    """values (B, D); age (B,): ticks since the frame that each is of, infinite where there is none."""

    values: Tensor
    age: Tensor

    def to(self, device: torch.device | str) -> Thought:
        return Thought(values=self.values.to(device), age=self.age.to(device))

    def of_use(self, max_age: int) -> Tensor:
        """(B,) bool: there, and neither too old nor from the future."""
        return (self.age >= 0) & (self.age <= max_age)


class Recall(nn.Module):
    """A thought (B, D) and its age -> (B, width); what is learned for its absence where it is missing or too old."""

    def __init__(self, config: ThoughtConfig, width: int) -> None:
        super().__init__()
        self.max_age = config.max_age
        self.read = nn.Linear(config.dim + 1, width)
        self.nothing = nn.Parameter(torch.zeros(width))

    def forward(self, thought: Thought | None, size: int) -> Tensor:
        if thought is None:
            return self.nothing.expand(size, -1)
        if tuple(thought.values.shape) != (size, self.read.in_features - 1) or len(thought.age) != size:
            raise expected(
                f"thoughts of shape (B, D) = ({size}, {self.read.in_features - 1}), each with its age",
                got=f"{tuple(thought.values.shape)} and {len(thought.age)} ages",
                do="hand over those of the model that the student learned from",
            )
        known = thought.of_use(self.max_age)[:, None]
        # zeros where it is not of use: what is left out must send no NaN back
        told = torch.cat([thought.values, thought.age[:, None] / self.max_age], dim=1).masked_fill(~known, 0.0)
        return torch.where(known, self.read(told), self.nothing)


def think(
    model: WorldActionModel,
    batch: Batch,
    *,
    kind: Kind,
    steps: int = 1,
    seed: int = 0,
    context: Context | None = None,
) -> Tensor:
    """(B, D) float32: the model's thoughts of a batch. context: of the batch, where it is known already.

    Raises WamError where nothing modulates the model's action, and for `goal` where it cannot imagine a frame and look at it.
    """
    context = context or model.context(batch)
    known = model.network.table.modulators("action", context.summaries)
    if not known:
        raise expected(
            "a model whose context modulates its action, to hand its thoughts over",
            got="one whose action only attends to it",
            do="use another teacher, or student.thought.kind=none",
        )
    found = torch.cat([context.summaries[s][:, 0] for s in known], dim=1)
    if kind == "goal":
        found = torch.cat([found, _goal(model, batch, context, steps=steps, seed=seed)], dim=1)
    return found.float()


def _goal(model: WorldActionModel, batch: Batch, context: Context, *, steps: int, seed: int) -> Tensor:
    """(B, D): the summary of the last frame that is imagined."""
    if "future" not in model.config.streams or "observation" not in context.summaries or model.config.history > 1:
        raise expected(
            "a model that imagines, acts on one frame and sums it up, for thoughts of kind `goal`",
            got=f"streams {', '.join(model.config.streams)} and history {model.config.history}",
            do="use student.thought.kind=context",
        )
    future = model.imagine(batch, steps=steps, seed=seed, same_noise=True, context=context).future
    assert future is not None
    frame = (future[:, :, -1:] * 255).round().to(torch.uint8)
    ahead = Batch(images=frame, instruction=batch.instruction, view_mask=batch.view_mask, embodiment=batch.embodiment)
    return model.context(ahead).summaries["observation"][:, 0]
