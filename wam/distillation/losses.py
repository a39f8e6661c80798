"""The named losses of a distillation, each on its own: what it compares, and on which rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import Batch, expected
from wam.distillation.rows import Drawn
from wam.distillation.teacher import Answers
from wam.model.chunk_heads import FlowHead
from wam.model.student import Student
from wam.training.prefixes import draw_prefixes, pushed_aside, require_displacements


class Distilled(nn.Module):
    """What is trained: the student, and a layer that reads the teacher's context off its feature, where that is a loss."""

    def __init__(self, student: Student, *, features: int = 0) -> None:
        super().__init__()
        self.student = student
        self.to_features = nn.Linear(student.config.width, features) if features else None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The dataset's rows of a batch. joined, z (B, width): what the student took in, and its feature of it; useful (B,) float:
    where the teacher has something to say; answers: to each; draw (B,): which of its chunks this batch takes."""

    batch: Batch
    joined: Tensor
    z: Tensor
    useful: Tensor | None = None
    answers: Answers | None = None
    draw: Tensor | None = None


def demonstrations(student: Student, seen: Seen, *, generator: torch.Generator) -> Tensor:
    """Cloning on real steps; random play teaches a policy nothing and is left out."""
    chunk, mask = _shown(student, seen.batch, "demonstrations")
    return student.head.loss(seen.z, chunk, mask, generator=generator)


def continued(student: Student, seen: Seen, *, noise: float = 0.0, generator: torch.Generator) -> Tensor:
    """The same for the rest of a chunk whose first actions, 1 to `student.prefix` of them, are settled and told; with noise
    they are pushed aside, see `wam.training.prefixes`."""
    chunk, mask = _shown(student, seen.batch, "continued")
    lengths = draw_prefixes(seen.batch.size, 1.0, student.config.prefix, generator=generator).to(mask.device)
    settled = (torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]) & (mask > 0)
    if noise:
        units, space = student.normalizer("action"), require_displacements(student.action_space)
        chunk = units.normalize(pushed_aside(units.restore(chunk), settled, space, noise=noise, generator=generator))
    return student.head.loss(student.going_on(seen.joined, chunk, settled), chunk, mask * ~settled, generator=generator)


def _shown(student: Student, batch: Batch, loss: str) -> tuple[Tensor, Tensor]:
    """Chunks (B, K, A) of the dataset, normalised, and the weight (B, K) of their steps: 0 in play and past the end."""
    if batch.action is None:
        raise expected(f"windows with actions, for the loss `{loss}`", got="none", do="give it weight 0")
    mask = torch.ones(batch.action.shape[:2], device=batch.action.device)
    if batch.action_mask is not None:
        mask = batch.action_mask.float()
    if batch.play is not None:
        mask = mask * (~batch.play).float()[:, None]
    return student.normalizer("action").normalize(batch.action), mask


def chunks(
    student: Student,
    z: Tensor,
    chunk: Tensor,
    *,
    useful: Tensor | None = None,
    settled: Tensor | None = None,
    generator: torch.Generator,
) -> Tensor:
    """The teacher's chunks (B, K, A), normalised, of which the student's K first steps are compared, but not those that are
    settled (B, K)."""
    chunk = chunk[:, : student.config.chunk].to(z.device)
    mask = torch.ones(chunk.shape[:2], device=z.device)
    if useful is not None:
        mask = mask * useful.to(z.device)[:, None]
    if settled is not None:
        mask = mask * ~settled[:, : chunk.shape[1]].to(z.device)
    return student.head.loss(z, chunk, mask, generator=generator)


def beyond(student: Student, joined: Tensor, drawn: Drawn, *, generator: torch.Generator) -> Tensor:
    """The same for rows beyond the dataset's: the student took in `joined` (B, width), and goes on from what is settled."""
    settled = drawn.settled.to(joined.device)
    z = student.going_on(joined, drawn.chunk.to(joined), settled) if settled.any() else student.trunk(joined)
    return chunks(student, z, drawn.chunk, settled=settled, generator=generator)


def teacher_actions(student: Student, seen: Seen, *, generator: torch.Generator) -> Tensor:
    assert seen.answers is not None
    assert seen.draw is not None
    return chunks(student, seen.z, seen.answers.chunk(seen.draw), useful=seen.useful, generator=generator)


def features(distilled: Distilled, seen: Seen) -> Tensor:
    """Squared error of the teacher's context, whose entries have unit variance, read off the student's feature."""
    assert distilled.to_features is not None
    assert seen.answers is not None
    assert seen.answers.features is not None
    assert seen.useful is not None
    wanted, weight = seen.answers.features.to(seen.z.device).float(), seen.useful.to(seen.z.device)
    error = F.mse_loss(distilled.to_features(seen.z).float(), wanted, reduction="none").mean(1)
    return (error * weight).sum() / weight.sum().clamp_min(1)


def flow(student: Student, seen: Seen, clocks: Tensor, *, generator: torch.Generator) -> Tensor:
    """The map between two points of the teacher's path (see `wam.model.chunk_heads`)."""
    assert seen.answers is not None
    assert seen.draw is not None
    assert seen.useful is not None
    head, rows = student.head, seen.useful.nonzero()[:, 0]
    assert isinstance(head, FlowHead)
    if not len(rows):
        return seen.z.sum() * 0
    path = seen.answers.path[rows, seen.draw[rows]].to(seen.z.device)
    return head.map_loss(seen.z[rows.to(seen.z.device)], path, clocks, generator=generator)
