"""Frames beyond the dataset's, with the teacher's answers: what it imagined, and what the student came to."""

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
class Rows:
    """seen: images (N, V, T, H, W, 3), sentences, and the state where it is known. answers: to each."""

    seen: Batch
    answers: Answers

    def draw(self, count: int, *, generator: torch.Generator) -> tuple[Batch, Tensor, Tensor]:
        """`count` of them, with repeats, a chunk (count, K, A) for each, and which they are (count,)."""
        rows = torch.randint(self.seen.size, (count,), generator=generator)
        draw = torch.randint(self.answers.path.shape[1], (count,), generator=generator)
        return self.seen[rows.tolist()], self.answers.take(rows).chunk(draw), rows

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Rows one after the other; all or none of the parts have a state."""
        batches = [part.seen for part in parts]
        fields: dict[str, Any] = {n: torch.cat([b.tensors()[n] for b in batches]) for n in batches[0].tensors()}
        seen = Batch(**fields, instruction=tuple(s for b in batches for s in b.instruction))
        return cls(seen=seen, answers=Answers.joined([part.answers for part in parts]))

    def keep(self, path: Path, *, identity: Mapping[str, Any], **about: Any) -> None:
        tensors = {f"seen.{name}": tensor for name, tensor in self.seen.tensors().items()}
        tensors |= {f"answers.{name}": tensor for name, tensor in self.answers.tensors().items()}
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
        return cls(seen=seen, answers=Answers.of(of("answers."))), about
