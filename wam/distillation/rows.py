"""Frames beyond the dataset's, with the teacher's answers: what it imagined, and what the student came to.

A chunk that comes late is judged in hindsight. What was settled has been carried out by then, and the teacher says what to do
from there on: that, after what was settled, is the chunk to have planned from the earlier frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wam.contracts import Batch
from wam.distillation.kept import keep, kept
from wam.distillation.teacher import Answers


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """batch: what was seen. chunk (B, K, A): to plan, normalised; settled (B, K): which of its actions are given. rows (B,):
    where these are among all."""

    batch: Batch
    chunk: Tensor
    settled: Tensor
    rows: Tensor


@dataclass(frozen=True, kw_only=True)
class Late:
    """before (N, P, A): what was being carried out when a chunk was begun, normalised; ticks (N,) long: how many of these were
    over when it came."""

    before: Tensor
    ticks: Tensor

    def hindsight(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """From chunks (N, K, A) for what was seen at last: those to have planned, and which actions were settled (N, K)."""
        place = torch.arange(chunk.shape[1]) - self.ticks[:, None]
        rows, longest = torch.arange(len(chunk))[:, None], self.before.shape[1]
        before = self.before[rows, torch.arange(chunk.shape[1]).clamp(max=longest - 1)]
        return torch.where(place[..., None] < 0, before, chunk[rows, place.clamp(min=0)]), place < 0

    def take(self, rows: Tensor) -> Late:
        return Late(before=self.before[rows], ticks=self.ticks[rows])


@dataclass(frozen=True, kw_only=True)
class Rows:
    """seen: images (N, V, T, H, W, 3), sentences, and the state where it is known. answers: to each; where chunks came late, to
    what was seen when they came."""

    seen: Batch
    answers: Answers
    late: Late | None = None

    def draw(self, count: int, *, generator: torch.Generator) -> Drawn:
        """`count` of them, with repeats, and a chunk for each."""
        rows = torch.randint(self.seen.size, (count,), generator=generator)
        draw = torch.randint(self.answers.path.shape[1], (count,), generator=generator)
        chunk = self.answers.take(rows).chunk(draw)
        settled = torch.zeros(chunk.shape[:2], dtype=torch.bool)
        if self.late is not None:
            chunk, settled = self.late.take(rows).hindsight(chunk)
        return Drawn(batch=self.seen[rows.tolist()], chunk=chunk, settled=settled, rows=rows)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Rows one after the other; all or none of the parts have a state, and were late."""
        batches = [part.seen for part in parts]
        fields: dict[str, Any] = {n: torch.cat([b.tensors()[n] for b in batches]) for n in batches[0].tensors()}
        seen = Batch(**fields, instruction=tuple(s for b in batches for s in b.instruction))
        late = [part.late for part in parts if part.late is not None]
        return cls(
            seen=seen,
            answers=Answers.joined([part.answers for part in parts]),
            late=Late(before=torch.cat([p.before for p in late]), ticks=torch.cat([p.ticks for p in late]))
            if late
            else None,
        )

    def keep(self, path: Path, *, identity: Mapping[str, Any], **about: Any) -> None:
        tensors = {f"seen.{name}": tensor for name, tensor in self.seen.tensors().items()}
        tensors |= {f"answers.{name}": tensor for name, tensor in self.answers.tensors().items()}
        if self.late is not None:
            tensors |= {"late.before": self.late.before, "late.ticks": self.late.ticks}
        keep(path, tensors, identity=identity, sentences=list(self.seen.instruction), **about)

    @classmethod
    def kept(cls, path: Path, *, identity: Mapping[str, Any]) -> tuple[Rows, dict[str, Any]] | None:
        """What `keep` wrote under this identity, and what was said about it."""
        found = kept(path, identity=identity)
        if found is None:
            return None
        tensors, about = found

        def of(part: str) -> dict[str, Any]:
            return {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}

        seen = Batch(**of("seen."), instruction=tuple(about.pop("sentences")))
        late = Late(**of("late.")) if of("late.") else None
        return cls(seen=seen, answers=Answers.of(of("answers.")), late=late), about
