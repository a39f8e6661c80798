"""Frames that the teacher imagined, with its chunks for them: states beside those that the dataset holds.

A demonstration's chunk is pushed to a side before its end is imagined, so the frame shows a hand that strayed, and the
teacher's chunk for it leads back. Of random play, the actions are as they were. An imagined frame has no state.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wam.contracts import Batch, expected
from wam.data.mixture import Mixture
from wam.distillation.config import ImaginedConfig
from wam.distillation.labels import TeacherLabels
from wam.distillation.rows import Rows
from wam.distillation.teacher import Teacher, fingerprint
from wam.progress import Progress
from wam.settings import to_plain


def imagined_rows(
    teacher: Teacher, mixture: Mixture, labels: TeacherLabels, config: ImaginedConfig, folder: Path
) -> Rows:
    """From windows spread evenly over all that the teacher has something to say to; kept in the folder."""
    chosen = imagined_from(labels, config)
    identity = {**teacher.identity, "labels": labels.identity, **to_plain(config)}
    path = folder / f"imagined-{fingerprint(identity)}.safetensors"
    found = Rows.kept(path, identity=identity)
    if found is not None:
        return found[0]
    size, parts = teacher.config.batch_size, []
    with Progress("frames the teacher imagines", len(chosen)) as bar:
        for first in range(0, len(chosen), size):
            batch = mixture.batch(labels.draws(chosen[first : first + size]))
            batch = batch.replace(instruction=tuple(labels.sentences[place] for place in labels.places(batch)))
            parts.append(imagine(teacher, batch, config, seed=teacher.config.seed + first))
            bar.update(first + batch.size)
    rows = Rows.joined(parts)
    rows.keep(path, identity=identity)
    return rows


def imagined_from(labels: TeacherLabels, config: ImaginedConfig) -> Tensor:
    """(N,): places of the windows after which frames are imagined."""
    places = torch.arange(len(labels.useful))[labels.useful]
    return places[np.unique(np.linspace(0, len(places) - 1, config.windows).astype(int))]


def imagine(teacher: Teacher, batch: Batch, config: ImaginedConfig, *, seed: int) -> Rows:
    """One frame for each window of the batch."""
    if batch.action is None:
        raise expected("windows with actions, to imagine after", got="none", do="give `imagined` weight 0")
    generator = torch.Generator().manual_seed(seed)
    normalizer = teacher.model.normalizer("action")
    push = config.push * torch.randn(batch.size, 1, batch.action.shape[-1], generator=generator)
    if batch.play is not None:
        push = push * (~batch.play).float()[:, None, None]
    pushed = normalizer.normalize(batch.action) + push
    action = normalizer.restore(pushed.clamp(-1, 1))
    frames = teacher.imagine(batch.replace(action=action), steps=config.steps, seed=seed)
    seen = Batch(images=frames, instruction=batch.instruction)
    return Rows(seen=seen, answers=teacher.answer(seen, seed=seed + 1))
