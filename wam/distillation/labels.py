"""The teacher's answers to every window of a mixture, asked once and kept on disk.

Asking costs a pass of the teacher's context; a student's step costs less than that, and every run and ablation comes by a
window many times. So answers are a table, and the frames stay where they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wam.contracts import Batch, expected
from wam.data.mixture import Mixture
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset
from wam.distillation.kept import keep, kept
from wam.distillation.teacher import Answers, Teacher, fingerprint
from wam.files import sha256
from wam.progress import Progress

ENVIRONMENT = "environment"
"""The episodes' column that says where they were recorded."""


def sentences_by_environment(store: EpisodeStore) -> dict[str, list[str]]:
    """What demonstrations of each environment are told."""
    found: dict[str, set[str]] = {}
    for episode in store.episodes:
        if not episode.play and episode.extra.get(ENVIRONMENT):
            found.setdefault(str(episode.extra[ENVIRONMENT]), set()).update(episode.tasks)
    return {name: sorted(sentences) for name, sentences in found.items()}


def told(dataset: WindowDataset, *, retell: bool, seed: int) -> tuple[list[str], Tensor]:
    """A sentence for each window, and (N,) bool: whether the teacher has something to say there. A demonstration keeps its own.
    Random play has none; it is told one of a task in its environment, drawn for each window, or is left out."""
    by_environment = sentences_by_environment(dataset.store) if retell else {}
    luck = np.random.default_rng(seed).integers(2**31, size=len(dataset))
    spoken, useful = list(dataset.sentences), torch.ones(len(dataset), dtype=torch.bool)
    for row in range(len(dataset)):
        episode = dataset.episode_of(row)[0]
        if not episode.play:
            continue
        choices = by_environment.get(str(episode.extra.get(ENVIRONMENT)), [])
        if retell and not choices:
            raise expected(
                "play in environments of which there are demonstrations too",
                got=f"{episode.extra.get(ENVIRONMENT, 'none named')} in {dataset.store.root}",
                do="set teacher.retell=false to leave play out",
            )
        useful[row] = retell
        spoken[row] = choices[luck[row] % len(choices)] if retell else spoken[row]
    return spoken, useful


class TeacherLabels:
    """answers: to all windows of the mixture, one dataset after the other; sentences, useful: see `told`. identity: a
    fingerprint of what was asked for each dataset."""

    def __init__(
        self, sizes: Sequence[int], answers: Answers, sentences: Sequence[str], useful: Tensor, *, identity: list[str]
    ) -> None:
        self._first = torch.tensor([0, *np.cumsum(sizes)[:-1]])
        self.answers, self.sentences, self.useful, self.identity = answers, sentences, useful, identity

    @classmethod
    def ask(cls, teacher: Teacher, mixture: Mixture, folder: Path) -> TeacherLabels:
        """Read what is kept in the folder; ask for the rest."""
        seed = teacher.config.seed
        parts, sentences, useful, identity = [], [], [], []
        for number, dataset in enumerate(mixture.datasets):
            spoken, there = told(dataset, retell=teacher.config.retell, seed=seed + number)
            asked = _asked(teacher, dataset, spoken, seed=seed + 1_000_003 * number)
            parts.append(_answers(teacher, dataset, spoken, asked, folder))
            identity.append(fingerprint(asked))
            sentences += spoken
            useful.append(there)
        return cls(mixture.sizes, Answers.joined(parts), sentences, torch.cat(useful), identity=identity)

    def places(self, batch: Batch) -> Tensor:
        """(B,): where a mixture's batch stands in the table."""
        assert batch.source is not None
        assert batch.window is not None
        return self._first[batch.source.cpu()] + batch.window.cpu()

    def draws(self, places: Tensor) -> np.ndarray:
        """(N, 2): the mixture's (dataset, window) of places (N,) in the table."""
        source = torch.searchsorted(self._first, places, right=True) - 1
        return torch.stack([source, places - self._first[source]], dim=1).numpy()


def _asked(teacher: Teacher, dataset: WindowDataset, spoken: Sequence[str], *, seed: int) -> dict[str, Any]:
    """All that the answers depend on."""
    return {
        **teacher.identity,
        "seed": seed,
        "data": sha256(dataset.store.root / "meta" / "stats.json"),
        "episodes": [[episode.index, episode.length] for episode in dataset.episodes],
        "cameras": list(dataset.cameras),
        "image_size": list(dataset.image_shape),
        "history": [dataset.spec.history, dataset.spec.history_stride],
        "told": hashlib.sha256("\n".join(spoken).encode()).hexdigest(),
    }


def _answers(
    teacher: Teacher, dataset: WindowDataset, spoken: Sequence[str], identity: dict[str, Any], folder: Path
) -> Answers:
    path = folder / f"labels-{fingerprint(identity)}.safetensors"
    found = kept(path, identity=identity)
    if found is not None:
        return Answers.of(found[0])
    answers = ask_windows(teacher, dataset, spoken, seed=identity["seed"])
    keep(path, answers.tensors(), identity=identity)
    return answers


def ask_windows(teacher: Teacher, dataset: WindowDataset, spoken: Sequence[str], *, seed: int) -> Answers:
    """Every window of a dataset, each with its sentence, a few at a time."""
    size, parts = teacher.config.batch_size, []
    with Progress("windows the teacher answers to", len(dataset)) as bar:
        for first in range(0, len(dataset), size):
            rows = range(first, min(first + size, len(dataset)))
            batch = dataset.batch(rows).replace(instruction=tuple(spoken[row] for row in rows))
            parts.append(teacher.answer(batch, seed=seed + first))
            bar.update(rows[-1] + 1)
    return Answers.joined(parts)
