"""What the voxels' loss gives: runs trained with it and without it, measured with cameras in place and moved.

    make occupancy-ablation       # train and measure three seeds of each, then this

Writes runs/occupancy-ablation/summary.json: success with the loss, without it, and the difference with its interval over
seeds, for each distance that the cameras were moved (centimetres and degrees).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wam.contracts import WamError
from wam.evaluation.intervals import mean_over_seeds
from wam.evaluation.summary import read_summary, write_summary

MOVED = (0, 5, 10, 20)
GATES = ("action_sensitivity", "forward_gain_db", "inverse_r2_gain", "imagine_gain_db")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/occupancy-ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    figures: dict[str, float] = {}

    def compare(name: str, file: str, key: str, *, scale: float = 1.0) -> None:
        sides = []
        for side in ("voxels", "plain"):
            found = [read_summary(options.runs / f"{side}-{seed}" / file)["figures"][key] for seed in options.seeds]
            sides.append([scale * value for value in found])
            figures[f"{name}_{side}"] = sum(found) / len(found)
        gain = mean_over_seeds([a - b for a, b in zip(*sides, strict=True)])
        figures.update({f"{name}_gain": gain.value, f"{name}_gain_low": gain.low, f"{name}_gain_high": gain.high})
        print(
            f"{name:24s} {figures[f'{name}_voxels']:6.2f} with voxels, {figures[f'{name}_plain']:6.2f} without; "
            f"gain {gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}] over seeds"
        )

    for moved in MOVED:
        compare(f"success_{moved}cm", f"moved-{moved}.json", "success_mean", scale=100)
    for gate in GATES:
        compare(gate, "gates.json", gate)
    first = read_summary(options.runs / f"voxels-{options.seeds[0]}" / "moved-0.json")
    n = first["n"]
    write_summary(options.runs / "summary.json", figures, n=n, seeds=options.seeds)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
