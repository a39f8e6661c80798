"""A small policy that is asked first, and a large one that is asked where the small one is unsure, as NanoVLA routes between
backbones of two sizes.

    policy = load_routed("runs/distill/student-0", calibration=Path("..."), share=0.2)
    policy.act([observation])
    policy.share, policy.small_time.summary, policy.large_time.summary

Each slot of a batch is routed by itself, and the large policy sees those alone that are its own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import Observation, expected
from wam.control.doubt import Calibration, Doubter, Doubting
from wam.control.latency import LatencyTracker
from wam.control.policy import Policy
from wam.control.wam_policy import WamPolicy, load_policy, teacher_of
from wam.files import sha256
from wam.model.pretrained import from_pretrained

SMALL, LARGE = "small", "large"


class RoutedPolicy:
    """chunk: the shorter of both. tally: chunks of each; small_time, large_time: how long their calls took."""

    def __init__(self, small: Doubting, large: Policy, *, threshold: float) -> None:
        self.small, self.large, self.threshold = small, large, threshold
        self.chunk = min(small.chunk, large.chunk)
        self.tally: Counter[str] = Counter({SMALL: 0, LARGE: 0})
        self.small_time, self.large_time = LatencyTracker(), LatencyTracker()

    @property
    def share(self) -> float:
        """Of all chunks, those of the large policy; NaN before the first."""
        asked = self.tally[SMALL] + self.tally[LARGE]
        return self.tally[LARGE] / asked if asked else float("nan")

    def reset(self, index: int | None = None) -> None:
        self.small.reset(index)
        self.large.reset(index)

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        """(B, K, A): of each slot the small policy's chunk, or the large one's where the doubt is beyond the threshold or no
        number."""
        slots = range(len(observations)) if slots is None else slots
        begun = time.perf_counter()
        planned, doubt = self.small.ask(observations, slots)
        self.small_time.add(time.perf_counter() - begun)
        actions = np.array(planned[:, : self.chunk])
        rows = np.flatnonzero(~(doubt <= self.threshold)).tolist()
        if rows:
            begun = time.perf_counter()
            theirs = self.large.act([observations[row] for row in rows], [slots[row] for row in rows])
            self.large_time.add(time.perf_counter() - begun)
            actions[rows] = theirs[:, : self.chunk]
        self.tally[LARGE] += len(rows)
        self.tally[SMALL] += len(observations) - len(rows)
        return actions


def load_routed(
    checkpoint: str | Path,
    *,
    calibration: Path,
    share: float,
    teacher: str | Path | None = None,
    teacher_steps: int = 1,
    threads: int = 0,
    **options: Any,
) -> RoutedPolicy:
    """A student's checkpoint and its teacher, by default that which its provenance names. share: of chunks that may go to the
    teacher, as on the calibration's held-out ones. options: of the student's `WamPolicy`.

    Raises WamError for a calibration of another student, and a teacher that looks back: it would not be shown every frame.
    """
    how = Calibration.load(calibration)
    own = sha256(Path(checkpoint) / "model.safetensors")
    if how.student != own:
        raise expected(
            f"a calibration of the student with sha256 {own[:12]}",
            got=f"one of {how.student[:12] or 'none'} in {calibration}",
            do="run wam eval routing on it",
        )
    small = Doubter(load_policy(checkpoint, threads=threads, **options), how)
    large = large_policy(checkpoint, small.policy, teacher, steps=teacher_steps)
    return RoutedPolicy(small, large, threshold=how.threshold(share))


def large_policy(
    checkpoint: str | Path, small: WamPolicy, teacher: str | Path | None = None, *, steps: int = 1
) -> WamPolicy:
    """The teacher's policy on the student's cameras. Raises WamError for one that looks back."""
    model = from_pretrained(teacher or teacher_of(Path(checkpoint)))
    if model.config.history > 1:
        raise expected(
            "a large policy that acts on one frame, since it is not shown every one",
            got=f"one that looks back over {model.config.history}",
            do="use another teacher",
        )
    return WamPolicy(model, cameras=small.cameras, steps=steps, seed=small.options["seed"], device=small.device)
