"""Broken depth maps: unreadable, mostly unmeasured, all at one distance, or in a unit that cannot be metres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam.contracts import WamError
from wam.data.checks.finding import Finding, Severity, finding, in_episodes
from wam.data.store import EpisodeStore

FRAMES = 8
"""Of each episode, evenly spread."""
NEAR, FAR = 0.02, 50.0
"""Metres between which the middle of a robot's view lies."""


def check_depth(store: EpisodeStore, camera: str, sample: Sequence[int]) -> list[Finding]:
    """The depth of a camera that has one, in these episodes."""
    feature = store.info.depth_keys[camera]
    measured: dict[int, np.ndarray] = {}
    share: dict[int, float] = {}
    broken: dict[int, WamError] = {}
    for episode in sample:
        length = store.episodes[episode].length
        try:
            metres = store.depth(camera, episode, np.unique(np.linspace(0, length - 1, FRAMES).astype(int)))
        except WamError as error:
            broken[episode] = error
            continue
        there = np.isfinite(metres) & (metres > 0)
        share[episode], measured[episode] = float(there.mean()), metres[there]
    found = []
    if broken:
        sentence = f"{feature} cannot be decoded in {in_episodes(list(broken))}: {next(iter(broken.values()))}"
        found.append(finding("error", "decodable", feature, sentence, evidence=len(broken), episodes=broken))
    bare = {e: s for e, s in share.items() if s < 0.5}
    if bare:
        least = min(bare.values())
        sentence = (
            f"{feature} measures {100 * least:.0f}% of its pixels, or little more, in {in_episodes(list(bare))}; "
            "check the sensor's range, or leave its depth out"
        )
        severity: Severity = "error" if least == 0 else "warning"
        found.append(finding(severity, "depth_unmeasured", feature, sentence, evidence=least, episodes=bare))
    flat = [e for e, m in measured.items() if share[e] >= 0.5 and np.quantile(m, 0.95) - np.quantile(m, 0.05) < 1e-3]
    if flat:
        at = float(np.median(measured[flat[0]]))
        sentence = (
            f"{feature} is {at:.3g} m almost everywhere in {in_episodes(flat)}: depths beyond the encoding's range, as of "
            "millimetres taken for metres, or a dead sensor; record it again in metres"
        )
        found.append(finding("error", "depth_flat", feature, sentence, evidence=at, episodes=flat))
    middle = {e: float(np.median(m)) for e, m in measured.items() if len(m) and e not in flat}
    odd = {e: m for e, m in middle.items() if not NEAR < m < FAR}
    if odd:
        at = next(iter(odd.values()))
        sentence = (
            f"{feature} lies at {at:.3g} m (median) in {in_episodes(list(odd))}, not between {NEAR:g} and {FAR:g}; its unit "
            "is not the metre that it says"
        )
        found.append(finding("error", "depth_unit", feature, sentence, evidence=at, episodes=odd))
    return found
