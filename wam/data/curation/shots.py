"""Where one shot ends and the next begins: PySceneDetect's detectors on small colour pictures, frame by frame.

A clip's boundaries must not depend on where reading began, or an interrupted run would go on with other clips. So a
detector is made anew at every boundary and is shown the frames from there on only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wam.contracts import expected
from wam.data.curation.config import Detector

SIDE = 96  # pixels of the longer side that detectors look at
WINDOW = 2  # frames on both sides that the adaptive detector compares with
_DEFAULTS = {"adaptive": 3.0, "content": 27.0}


class ShotFinder:
    """`push` pictures one after the other; it tells the number of the first picture of a new shot, as soon as known.

    delay: how many pictures later it may be told. A cut at the very first pictures after a boundary is not seen.
    """

    def __init__(self, detector: Detector = "adaptive", threshold: float = 0.0) -> None:
        self.kind, self.threshold = detector, threshold or _DEFAULTS.get(detector, 0.0)
        self.delay = WINDOW if detector == "adaptive" else 0
        self.restart()

    def restart(self) -> None:
        """Forget what was seen: the next picture is the first of a clip."""
        self._detector = _detector(self.kind, self.threshold)

    def push(self, number: int, small: np.ndarray) -> int | None:
        """small: (h, w, 3) uint8, blue green red."""
        if self._detector is None:
            return None
        cuts = self._detector.process_frame(number, small)  # plain numbers do where no time is asked for
        return int(cuts[0]) if cuts else None


def _detector(kind: Detector, threshold: float) -> Any:
    if kind == "none":
        return None
    try:
        from scenedetect.detectors import AdaptiveDetector, ContentDetector
    except ModuleNotFoundError as error:
        raise expected(
            "the package scenedetect, which finds shot cuts", got="it is not installed",
            do="pip install 'wam[curate]', or set detector=none",
        ) from error  # fmt: skip
    if kind == "adaptive":
        return AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=0, window_width=WINDOW)
    return ContentDetector(threshold=threshold, min_scene_len=0)
