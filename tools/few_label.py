"""What pretraining on unlabelled video gains where labels are few: success with it and without it, same starts.

    make few-label       # pretrain, post-train and measure three seeds of each, then this

Writes runs/few-label/summary.json; status 1 if the gain is below its target.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wam.contracts import WamError
from wam.evaluation.gain import success_gain
from wam.evaluation.summary import write_summary

TARGET = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/few-label"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    sides = [[options.runs / f"{side}-{seed}" for seed in options.seeds] for side in ("pretrained", "alone")]
    gain = success_gain(*sides)
    write_summary(
        options.runs / "summary.json",
        {
            "success_gain_points": gain.starts.value,
            "gain_low": gain.starts.low,
            "gain_high": gain.starts.high,
            "gain_low_over_seeds": gain.seeds.low,
            "gain_high_over_seeds": gain.seeds.high,
            "success_pretrained": sum(gain.treated) / len(gain.treated),
            "success_alone": sum(gain.control) / len(gain.control),
        },
        n=gain.starts.n,
        seeds=options.seeds,
    )
    for seed, ours, theirs in zip(options.seeds, gain.treated, gain.control, strict=True):
        print(f"seed {seed}: {ours:.2f} pretrained, {theirs:.2f} alone")
    print(
        f"gain {gain.starts.value:.1f} points [{gain.starts.low:.1f}, {gain.starts.high:.1f}] over starts, "
        f"[{gain.seeds.low:.1f}, {gain.seeds.high:.1f}] over seeds; at least {TARGET:g} asked"
    )
    return 0 if gain.starts.value >= TARGET else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
