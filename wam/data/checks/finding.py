"""One thing that is wrong, or looks wrong, with a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """severity: `error` (training on it would go wrong), `warning` (look at it) or `note` (worth knowing).

    check: the check's name. feature: the column or camera. episodes: indices concerned; empty means the whole dataset.
    sentence: what, the number that shows it, what to do. evidence: that number.
    """

    severity: Severity
    check: str
    feature: str
    sentence: str
    evidence: float
    episodes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.severity}: [{self.check}] {self.sentence}"


def finding(
    severity: Severity, check: str, feature: str, sentence: str, *, evidence: float, episodes: Iterable[int] = ()
) -> Finding:
    return Finding(
        severity=severity,
        check=check,
        feature=feature,
        sentence=sentence,
        evidence=float(evidence),
        episodes=tuple(int(e) for e in episodes),
    )


def listed(items: Sequence[object], *, most: int = 6) -> str:
    """ "3, 5 and 7", or "0, 1, 2, 3, 4, 5 and 12 more"."""
    words = [str(item) for item in items]
    if len(words) > most + 1:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "none"


def in_episodes(episodes: Sequence[int]) -> str:
    return f"episode{'s' if len(episodes) > 1 else ''} {listed(episodes)}"
