"""The gain of one way of training over another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wam.contracts import WamError
from wam.evaluation.gain import LOG, success_gain


def write_run(folder: Path, rates: dict[str, list[bool]]) -> Path:
    lines: list[dict[str, object]] = [{"identity": {}}]
    for task, results in rates.items():
        for start, success in enumerate(results):
            lines.append({"environment": task, "seed": start, "variant": "policy", "success": success})
            lines.append({"environment": task, "seed": start, "variant": "wrong_text", "success": not success})
    (folder / LOG).parent.mkdir(parents=True)
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_gain_is_that_of_the_same_starts_in_points(tmp_path: Path) -> None:
    ours = [write_run(tmp_path / f"a{i}", {"open": [True] * 4, "close": [True, True, False, False]}) for i in range(2)]
    theirs = [
        write_run(tmp_path / f"b{i}", {"open": [True] * (2 + i) + [False] * (2 - i), "close": [False] * 4})
        for i in range(2)
    ]
    gain = success_gain(ours, theirs)
    assert gain.treated == (0.75, 0.75)
    assert gain.control == (0.25, 0.375)
    assert gain.starts.value == gain.seeds.value == pytest.approx(43.75)
    assert gain.starts.low < 43.75 < gain.starts.high
    assert gain.starts.n == 8
    assert gain.seeds.n == 2


def test_runs_with_other_starts_are_not_compared(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "a", {"open": [True] * 3}), write_run(tmp_path / "b", {"open": [True] * 4})
    with pytest.raises(WamError, match=r"the 3 starts.*4 others"):
        success_gain([one], [other])
    with pytest.raises(WamError, match="as many runs on both sides"):
        success_gain([one], [])
    with pytest.raises(WamError, match="wam eval"):
        success_gain([tmp_path / "none"], [one])
