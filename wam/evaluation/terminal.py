"""The gates as a table for terminals; a failed gate says what it means."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wam.evaluation.gates import GateResult
from wam.evaluation.words import number, target_words, words_for


def format_gates(results: Sequence[GateResult], *, colour: bool = False) -> str:
    """One line a gate, PASS or FAIL first; colour: paint them green and red."""
    if not results:
        return "world-model gates: not measured"
    paint = {True: "\033[32m", False: "\033[31m"} if colour else {True: "", False: ""}
    end = "\033[0m" if colour else ""
    lines = ["world-model gates"]
    for r in results:
        steps = f"{r.steps} step{'s' if r.steps > 1 else ''}" if r.steps else ""
        value = number(r.value) + (words_for(r.name).unit if math.isfinite(r.value) else "")
        verdict = f"{paint[r.passed]}{'PASS' if r.passed else 'FAIL'}{end}"
        lines.append(f"  {verdict}  {r.name:<19} {steps:<8} {value:>14}  {target_words(r):<14} n={r.n}")
    failed = {r.name: None for r in results if not r.passed}
    lines += [f"  {name}: {words_for(name).failed}" for name in failed]
    passed = sum(r.passed for r in results)
    lines.append(f"  {paint[passed == len(results)]}{passed} of {len(results)} passed{end}")
    return "\n".join(lines)
