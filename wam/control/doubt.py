"""How unsure a student is of its chunk, by name, and what share of its chunks is beyond a given doubt.

| name     | doubt |
|----------|-------|
| `draws`  | how far a few chunks from noises of their own lie apart: for a flow head, whose noise decides between ways |
| `error`  | its distance from its teacher, as a linear layer on its feature predicts it |
| `change` | how far its chunk is from what its last one said of the same ticks; an episode's first has nothing against it: 0 |

All are in units in which an action's usual range is -1 to 1 (`error`: its logarithm). A threshold means nothing by itself, so
it is chosen by `Calibration` for the share of held-out chunks that may be given away.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from wam.contracts import Observation, expected
from wam.control.wam_policy import WamPolicy
from wam.files import write_json
from wam.model.student import Student

Doubt = Literal["draws", "error", "change"]
DOUBTS: tuple[str, ...] = get_args(Doubt)
SMALLEST_ERROR = 1e-4


class Doubting(Protocol):
    """A policy that says how unsure it is. chunk: K."""

    chunk: int

    def reset(self, index: int | None = None) -> None: ...

    def ask(self, observations: Sequence[Observation], slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(B, K, A) actions, and (B,) how unsure it is of each."""
        ...


@dataclass(frozen=True, kw_only=True)
class ErrorHead:
    """log of the predicted error: bias + weight . (z - center), z (B, W) being a student's feature."""

    center: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float

    def __call__(self, z: Tensor) -> Tensor:
        """(B,)."""
        center, weight = (torch.tensor(x, dtype=z.dtype, device=z.device) for x in (self.center, self.weight))
        return (z - center) @ weight + self.bias

    @classmethod
    def blank(cls, width: int) -> ErrorHead:
        """Before it is fitted: it predicts the same everywhere."""
        return cls(center=(0.0,) * width, weight=(0.0,) * width, bias=0.0)

    @classmethod
    def fit(cls, z: Tensor, error: Tensor, *, ridge: float = 0.1) -> ErrorHead:
        """By ridge regression of the logarithm of error (N,) on z (N, W); ridge: per window, of entries of unit variance."""
        x, y = z.double(), error.double().clamp_min(SMALLEST_ERROR).log()
        center, scale = x.mean(0), x.std(0).clamp_min(1e-6)
        unit = (x - center) / scale
        penalty = ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        weight = torch.linalg.solve(unit.T @ unit + penalty, unit.T @ (y - y.mean())) / scale
        return cls(center=tuple(center.tolist()), weight=tuple(weight.tolist()), bias=float(y.mean()))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """doubt: by name. execute: actions of each chunk that are carried out; draws: of `draws`; head: of `error`. scores (N,):
    doubts of held-out chunks, ascending. student: sha256 of the weights whose doubts they are."""

    doubt: Doubt
    execute: int
    draws: int = 4
    head: ErrorHead | None = None
    scores: tuple[float, ...] = field(default=())
    student: str = ""

    def threshold(self, share: float) -> float:
        """The doubt beyond which at most this share of the held-out chunks lies, and no smaller part of it than equal doubts
        allow. Raises WamError where there are none, or the share is not between 0 and 1."""
        if not self.scores or not 0 <= share <= 1:
            raise expected(
                "held-out chunks, and a share of them from 0 to 1", got=f"{len(self.scores)} and {share}", do="mend it"
            )
        count = math.floor(share * len(self.scores) + 1e-9)
        if count == 0:
            return math.inf
        return -math.inf if count == len(self.scores) else self.scores[-count - 1]

    def save(self, path: Path) -> None:
        write_json(path, {**vars(self), "head": None if self.head is None else vars(self.head)})

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Raises WamError for a file that holds none."""
        try:
            held: dict[str, Any] = json.loads(path.read_text())
            if (head := held.pop("head")) is not None:
                head = ErrorHead(center=tuple(head["center"]), weight=tuple(head["weight"]), bias=float(head["bias"]))
            scores = tuple(float(score) for score in held.pop("scores"))
            found = cls(**held, head=head, scores=scores)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise expected(
                f"a calibration of doubt in {path}", got=f"{type(error).__name__}: {error}", do="run wam eval routing"
            ) from error
        return found

    def of(self, scores: np.ndarray) -> Calibration:
        """The same with these doubts (N,) of held-out chunks. Raises WamError for one that is not finite."""
        if not np.isfinite(scores).all():
            raise expected("finite doubts to calibrate by", got="NaN or infinity", do="check the student")
        return replace(self, scores=tuple(np.sort(scores).tolist()))


class Doubter:
    """A student's policy that says how unsure it is, as `how` says. What it plans is what the student alone would."""

    def __init__(self, policy: WamPolicy, how: Calibration) -> None:
        student = policy.model
        if not isinstance(student, Student):
            raise expected("a student, to be unsure", got=type(student).__name__, do="distill one: wam distill")
        if how.doubt == "draws" and (student.config.head != "flow" or how.draws < 2):
            raise expected(
                "a student with a flow head, and two draws or more, for doubt by `draws`",
                got=f"head {student.config.head} and {how.draws}",
                do=f"use one of {', '.join(name for name in DOUBTS if name != 'draws')}",
            )
        if how.doubt == "error" and (how.head is None or len(how.head.weight) != student.config.width):
            raise expected("a layer fitted to this student's feature", got="none, or another's", do="calibrate it")
        most = policy.chunk - (how.doubt == "change")  # which needs ticks that two chunks speak of
        if how.doubt not in DOUBTS or not 1 <= how.execute <= most:
            raise expected(
                f"a doubt among {', '.join(DOUBTS)} and execute from 1 to {most}",
                got=f"{how.doubt} and {how.execute}",
                do="correct it",
            )
        self.policy, self.student, self.how, self.chunk = policy, student, how, policy.chunk
        self._last: dict[int, Tensor] = {}

    def reset(self, index: int | None = None) -> None:
        self.policy.reset(index)
        if index is None:
            self._last.clear()
        else:
            self._last.pop(index, None)

    def ask(self, observations: Sequence[Observation], slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        actions, doubt, _ = self.explain(observations, slots)
        return actions, doubt

    @torch.no_grad()
    def explain(
        self, observations: Sequence[Observation], slots: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """As `ask`, with the feature (B, W) that the doubt is of."""
        z = self.student.look(self.policy.seen(observations, slots))
        options = self.policy.options
        count = self.how.draws if self.how.doubt == "draws" else 1
        noises = [self.student.noise(1, seed=options["seed"] + number) for number in range(count)]
        noise = torch.cat(noises).repeat(len(z), 1, 1)
        chunks = self.student.head.sample(z.repeat_interleave(count, 0), noise, steps=options["steps"]).float()
        chunks = chunks.unflatten(0, (len(z), count))
        if self.how.doubt == "draws":
            score = chunks.std(1).mean((1, 2))
        elif self.how.doubt == "error":
            assert self.how.head is not None
            score = self.how.head(z)
        else:
            score = torch.stack([self._change(slot, chunk) for slot, chunk in zip(slots, chunks[:, 0], strict=True)])
        actions = self.student.normalizer("action").restore(chunks[:, 0])
        return self.policy.clipped(actions), score.cpu().numpy(), z

    def _change(self, slot: int, chunk: Tensor) -> Tensor:
        """From what the last chunk said of the ticks that both speak of."""
        last, self._last[slot] = self._last.get(slot), chunk
        if last is None:
            return torch.zeros(())
        return (last[self.how.execute :] - chunk[: -self.how.execute]).abs().mean().cpu()
