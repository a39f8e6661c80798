"""What a student is handed in training: the teacher's thoughts of earlier frames, as old as they will be on a robot.

The teacher thinks a few times a second, and each thought is used until the next one is there. So training draws an age for each
window and takes the thought of the frame so many ticks before; at an episode's start there is none yet. A thought that was
told another sentence is never handed over, here or on a robot.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wam.contracts import expected
from wam.data.mixture import Mixture
from wam.distillation.labels import TeacherLabels
from wam.distillation.rows import Rows
from wam.model.thought import Thought, ThoughtConfig


class EarlierThoughts:
    """thoughts (N, D): of all windows of the mixture, in the table of the teacher's labels."""

    def __init__(self, config: ThoughtConfig, labels: TeacherLabels, mixture: Mixture) -> None:
        if labels.answers.handed is None:
            raise expected(
                "a teacher whose context modulates its action, to hand its thoughts over",
                got="one whose action only attends to it",
                do="set student.thought.kind=none",
            )
        self.config, self.thoughts = config, labels.answers.handed
        numbers = {sentence: number for number, sentence in enumerate(dict.fromkeys(labels.sentences))}
        self._told = torch.tensor([numbers[sentence] for sentence in labels.sentences])
        self._first = first_windows(mixture)

    def of(self, places: Tensor, *, generator: torch.Generator) -> Thought:
        """For windows at these places (B,) of the table."""
        age = torch.randint(self.config.max_age + 1, places.shape, generator=generator)
        earlier = places - age
        there = earlier >= self._first[places]
        earlier = torch.where(there, earlier, places)
        there &= self._told[earlier] == self._told[places]
        return self._some(self.thoughts[earlier], age, there, generator)

    def after(self, places: Tensor, ticks: int, *, generator: torch.Generator) -> Thought:
        """For frames so many ticks after the windows at these places, told the same."""
        return self._some(self.thoughts[places], torch.full_like(places, ticks), places >= 0, generator)

    def of_rows(self, rows: Rows, chosen: Tensor, *, generator: torch.Generator) -> Thought:
        """For frames of no episode: their own thoughts, of age 0."""
        assert rows.answers.handed is not None
        there = chosen >= 0
        return self._some(rows.answers.handed[chosen], torch.zeros_like(chosen), there, generator)

    def _some(self, values: Tensor, age: Tensor, there: Tensor, generator: torch.Generator) -> Thought:
        """These, less what is dropped."""
        kept = there & (torch.rand(age.shape, generator=generator) >= self.config.dropout)
        return Thought(values=values.float(), age=torch.where(kept, age.float(), torch.inf))


def first_windows(mixture: Mixture) -> Tensor:
    """(N,): for each window of the mixture, one dataset after the other, the place of its episode's first."""
    found, before = [], 0
    for dataset in mixture.datasets:
        lengths = torch.tensor([episode.length for episode in dataset.episodes])
        found.append(before + (lengths.cumsum(0) - lengths).repeat_interleave(lengths))
        before += len(dataset)
    return torch.cat(found)
