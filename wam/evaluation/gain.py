"""What one way of training gains over another in closed loop, start by start, over several training seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wam.contracts import expected
from wam.evaluation.intervals import Interval, bootstrap, mean_over_seeds

LOG = Path("evaluation") / "episodes.jsonl"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """In percentage points of success. starts: over the starts that both met, which says how far other starts might
    differ; seeds: over the training seeds. treated, control: mean success of each seed."""

    starts: Interval
    seeds: Interval
    treated: tuple[float, ...]
    control: tuple[float, ...]


def successes(run: Path) -> dict[tuple[str, int], float]:
    """(environment, start) -> 1 or 0, of the episodes in which a run's policy was told its own task."""
    path = run / LOG
    if not path.is_file():
        raise expected(f"recorded episodes of {run}", got="none", do=f"measure it: wam eval {run}")
    found = {}
    for line in path.read_text().splitlines()[1:]:
        episode = json.loads(line)
        if episode["variant"] == "policy":
            found[episode["environment"], int(episode["seed"])] = float(episode["success"])
    return found


def success_gain(treated: Sequence[Path], control: Sequence[Path]) -> Gain:
    """treated, control: run folders, one a training seed, in the same order. Raises WamError where their starts differ."""
    if not treated or len(treated) != len(control):
        raise expected(
            "as many runs on both sides", got=f"{len(treated)} and {len(control)}", do="name one of each for every seed"
        )
    ours, theirs = [successes(run) for run in treated], [successes(run) for run in control]
    starts = sorted(ours[0])
    for run, found in zip([*treated, *control], [*ours, *theirs], strict=True):
        if sorted(found) != starts:
            raise expected(
                f"the {len(starts)} starts of {treated[0]}",
                got=f"{len(found)} others in {run}",
                do="measure both alike",
            )
    won, lost = (np.array([[100 * run[start] for start in starts] for run in side]) for side in (ours, theirs))
    return Gain(
        starts=bootstrap((won - lost).mean(axis=0)),
        seeds=mean_over_seeds((won - lost).mean(axis=1).tolist()),
        treated=tuple((won.mean(axis=1) / 100).tolist()),
        control=tuple((lost.mean(axis=1) / 100).tolist()),
    )
