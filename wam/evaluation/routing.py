"""What a student gains where its teacher is asked when it is unsure: success and the share of chunks that were routed, beside
both alone.

Thresholds are chosen on held-out demonstrations of the student's own data, for shares that are asked for. `doubt_rank` says how
well each doubt knows where the student is far from its teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from wam.contracts import Observation, expected
from wam.control.doubt import DOUBTS, Calibration, Doubter, ErrorHead
from wam.control.policy import Policy
from wam.control.routing import LARGE, RoutedPolicy, large_policy
from wam.control.wam_policy import WamPolicy, load_policy, teacher_of
from wam.data.splits import split_episodes
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset
from wam.evaluation.evaluate import held_out_datasets, spread_rows
from wam.evaluation.figures import Measured
from wam.evaluation.student import seen_by
from wam.evaluation.together import Side, TogetherConfig, drive_side
from wam.files import sha256
from wam.training.config import TrainConfig
from wam.training.data import some_of_each_task, window_spec
from wam.training.state import newest_checkpoint, trained_config

FIT_EVERY = 2
"""Frames from one chunk to the next, of those to which doubt by `error` is fitted."""


@dataclass(kw_only=True)
class RoutingEvaluateConfig(TogetherConfig):
    """doubts: by name, see `wam.control.doubt`. shares: of chunks that may go to the teacher. draws: of doubt by `draws`.
    fit_episodes: demonstrations that the student was trained on to which doubt by `error` is fitted."""

    doubts: list[str] = field(default_factory=lambda: ["error", "change"])
    shares: list[float] = field(default_factory=lambda: [0.1, 0.3])
    draws: int = 4
    fit_episodes: int = 40

    def validate(self) -> None:
        super().validate()
        if not self.doubts or set(self.doubts) - set(DOUBTS) or any(not 0 <= share <= 1 for share in self.shares):
            raise expected(
                f"doubts among {', '.join(DOUBTS)} and shares from 0 to 1",
                got=f"{self.doubts} and {self.shares}",
                do="mend `doubts` and `shares`",
            )


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Chunks along demonstrations: doubt (N,); z (N, W) the student's feature; distance (N,) of its chunk from its teacher's,
    over the actions that are carried out."""

    doubt: np.ndarray
    z: Tensor
    distance: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """held_out: from the student's training; trained: some that were not, opened where they are needed."""

    held_out: Sequence[WindowDataset]
    trained: Callable[[], Sequence[WindowDataset]]

    @classmethod
    def of(cls, run: Path, config: RoutingEvaluateConfig) -> Demonstrations:
        own = trained_config(run)
        return cls(held_out=held_out_datasets(own, play=False), trained=lambda: _trained(own, config.fit_episodes))


def _trained(config: TrainConfig, count: int) -> list[WindowDataset]:
    """`count` demonstrations, spread evenly over those of each dataset that the run was trained on."""
    found = []
    for part in config.data.parts:
        store, data = EpisodeStore(part.root), config.data
        train, _ = split_episodes(store, held_out_share=data.held_out, seed=data.split_seed)
        used = some_of_each_task(store, train, skip=part.skip, take=part.take)
        chosen = [place for place in used if not store.episodes[place].play]
        if chosen:
            rows = spread_rows(len(chosen), max(1, count // len(config.data.parts)))
            found.append(WindowDataset(store, window_spec(config), episodes=[chosen[row] for row in rows]))
    if not found:
        raise expected("demonstrations to fit doubt by `error` to", got="none", do="use another doubt")
    return found


def evaluate(run: Path, config: RoutingEvaluateConfig, *, say: Callable[[str], None] = print) -> Measured:
    """Calibrate on the run's held-out demonstrations, then drive. Writes `calibration-DOUBT.json` beside the episodes, for
    `wam serve`."""
    config.validate()
    if config.threads:
        torch.set_num_threads(config.threads)
    checkpoint = newest_checkpoint(run)
    folder = Path(config.output) if config.output else run / "evaluation" / "routing"
    teacher = newest_checkpoint(Path(config.teacher)) if config.teacher else teacher_of(checkpoint)
    small = load_policy(checkpoint, steps=config.student_steps, seed=config.seed)
    large = large_policy(checkpoint, small, teacher, steps=config.teacher_steps)
    data = Demonstrations.of(run, config)
    found, known = Measured(), {}
    for name in config.doubts:
        how, rank, n = calibrate(name, small, large, data, config, student=sha256(checkpoint / "model.safetensors"))
        how.save(folder / f"calibration-{name}.json")
        found.add(f"doubt_rank_{name}", rank, n)
        known[name] = how
        say(f"{name}: calibrated on {n} held-out chunks")
    weights = {"student": sha256(checkpoint / "model.safetensors"), "teacher": sha256(teacher / "model.safetensors")}
    steps = {"steps": [config.student_steps, config.teacher_steps]}
    make = seen_by(checkpoint)

    def side(name: str, policy: Callable[[], Policy], **about: object) -> Side:
        return drive_side(name, policy, config, folder, identity={**weights, **steps, **about}, make=make)

    alone = [side("student", lambda: small), side("teacher", lambda: large)]
    routed = []
    for name, how in known.items():
        for share in config.shares:
            limit = how.threshold(share)

            def policy(how: Calibration = how, limit: float = limit) -> Policy:
                return RoutedPolicy(Doubter(small, how), large, threshold=limit)

            routed.append(side(f"{name}_{share:g}", policy, threshold=repr(limit)))
    return figures(alone, routed, found)


def figures(alone: Sequence[Side], routed: Sequence[Side], found: Measured) -> Measured:
    for side in (*alone, *routed):
        found.add(f"success_{side.name}", side.success, len(side.episodes))
        found.add(f"chunk_ms_{side.name}", side.chunk_ms, side.chunks)
    for side in routed:
        found.add(f"routed_{side.name}", side.share(LARGE), side.chunks)
    return found


def calibrate(
    name: str,
    small: WamPolicy,
    large: Policy,
    data: Demonstrations,
    config: RoutingEvaluateConfig,
    *,
    student: str = "",
) -> tuple[Calibration, float, int]:
    """A doubt with its scores on held-out chunks, the rank correlation of these with the student's distance from its teacher,
    and how many chunks there are. Doubt by `error` is fitted to frames that the student was trained on."""
    execute = config.execute
    how = Calibration(doubt=name, execute=execute, draws=config.draws, student=student)  # type: ignore[arg-type]
    if name == "error":
        how = replace(how, head=ErrorHead.blank(small.model.config.width))
        walk = walked(Doubter(small, how), large, data.trained(), execute, every=FIT_EVERY)
        how = replace(how, head=ErrorHead.fit(walk.z, torch.from_numpy(walk.distance)))
    walk = walked(Doubter(small, how), large, data.held_out, execute, every=execute)
    return how.of(walk.doubt), rank_correlation(walk.doubt, walk.distance), len(walk.doubt)


def walked(small: Doubter, large: Policy, datasets: Sequence[WindowDataset], execute: int, *, every: int) -> Walk:
    """What both say of `every`-th frames, as a policy comes to see them."""
    small.reset()
    doubt, z, distance = [], [], []
    scale = small.student.normalizer("action").scale.cpu().numpy()
    for numbers, observations in frames(datasets, every):
        planned, unsure, feature = small.explain(observations, numbers)
        theirs = large.act(observations, numbers)
        doubt.append(unsure)
        z.append(feature.float().cpu())
        distance.append((np.abs(planned[:, :execute] - theirs[:, :execute]) / scale).mean((1, 2)))
    small.reset()
    return Walk(doubt=np.concatenate(doubt), z=torch.cat(z), distance=np.concatenate(distance))


def frames(datasets: Sequence[WindowDataset], every: int) -> Iterator[tuple[list[int], list[Observation]]]:
    """Every `every`-th frame of all episodes, instant by instant: the numbers of the episodes that last so long, and their
    observations."""
    first = 0
    for dataset in datasets:
        lengths = np.array([episode.length for episode in dataset.episodes])
        begins = np.cumsum(lengths) - lengths
        for tick in range(0, int(lengths.max()), every):
            lasting = np.flatnonzero(lengths > tick)
            batch = dataset.batch(begins[lasting] + tick)
            state = None if batch.state is None else batch.state.numpy()
            yield (
                (first + lasting).tolist(),
                [
                    Observation(
                        images=dict(zip(dataset.cameras, batch.images[row, :, -1].numpy(), strict=True)),
                        state=None if state is None else state[row],
                        instruction=batch.instruction[row],
                    )
                    for row in range(batch.size)
                ],
            )
        first += len(lengths)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; 0 where one of them is constant."""
    return float(spearmanr(a, b).statistic) if np.ptp(a) and np.ptp(b) else 0.0
