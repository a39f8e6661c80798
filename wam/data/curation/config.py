"""`CurateConfig`: what becomes of raw video."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from wam.contracts import expected
from wam.data.video import VideoEncoding

Detector = Literal["adaptive", "content", "none"]
Duplicates = Literal["drop", "mark", "off"]
_WITHOUT_EFFECT = ("processes", "patience")


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """Settings of `wam data curate`.

    What a clip is
      size: (height, width) in pixels; a picture covers it and its centre is kept. fps: frames a second of the dataset.
      min_seconds, max_seconds: shorter pieces are left out, longer shots are cut. max_gap: seconds without a frame
      after which a new clip begins. min_side: sources with a shorter side are left out, since enlarging adds nothing.
      slow_sources: keep sources with fewer frames a second than `fps`, repeating frames.
      detector: PySceneDetect's adaptive or content detector, or none; threshold: of it, 0 for its own default.
    What is left out
      min_motion: least share of pixels that change from one frame to the next, over the clip. min_moving: least share
      of the frames in which anything moves. max_blur: 0 is sharp, 1 shows no edge at all.
      duplicates: drop near-duplicates, only mark them in the manifest, or do not look. hash_bits: of the 256 of the
      perceptual hash, how many may differ. motion_similarity, embedding_similarity: least cosine between the motion
      maps of two clips, and between the embeddings that a hook gives.
    What is recorded
      licence: of sources that do not name their own. camera: name of the one camera. encoding: of the clips.
      shard_megabytes: above 0, the clips are also written as WebDataset tar shards of about this size.
    How it runs
      processes: 0 for one per processor. patience: seconds without a sign after which a decoder counts as stuck.
    """

    size: tuple[int, int] = (256, 256)
    fps: float = 10.0
    min_seconds: float = 1.5
    max_seconds: float = 10.0
    max_gap: float = 0.5
    min_side: int = 96
    slow_sources: bool = False
    detector: Detector = "adaptive"
    threshold: float = 0.0
    min_motion: float = 0.01
    min_moving: float = 0.6
    max_blur: float = 0.7
    duplicates: Duplicates = "drop"
    hash_bits: int = 24
    motion_similarity: float = 0.9
    embedding_similarity: float = 0.95
    licence: str = "unknown"
    camera: str = "video"
    encoding: VideoEncoding = field(default_factory=lambda: VideoEncoding(gop=8, crf=23))
    shard_megabytes: int = 0
    processes: int = 0
    patience: float = 120.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        if len(self.size) != 2 or min(self.size) < 32 or any(side % 2 for side in self.size):
            raise expected(
                "size as an even height and width of at least 32", got=self.size, do="give e.g. size=[256,256]"
            )
        for name in ("fps", "min_seconds", "max_seconds", "max_gap", "patience"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise expected(f"{name} above 0", got=getattr(self, name), do="give a number of seconds or frames")
        if self.max_seconds < self.min_seconds or self.min_seconds * self.fps < 2:
            raise expected(
                "min_seconds of at least two frames and at most max_seconds",
                got=f"min_seconds {self.min_seconds:g} and max_seconds {self.max_seconds:g} at {self.fps:g} fps",
                do="widen the range",
            )
        for name in ("min_motion", "min_moving", "max_blur", "motion_similarity", "embedding_similarity"):
            if not 0 <= getattr(self, name) <= 1:
                raise expected(f"{name} between 0 and 1", got=getattr(self, name), do="it is a share")
        for name in ("min_side", "hash_bits", "threshold", "shard_megabytes", "processes"):
            if not getattr(self, name) >= 0:
                raise expected(f"{name} of at least 0", got=getattr(self, name), do="raise it")
        if self.hash_bits > 64:
            raise expected("hash_bits of at most 64", got=self.hash_bits, do="unrelated clips differ in about 128")
        if self.encoding.codec != "libx264" or self.encoding.pix_fmt != "yuv420p":
            raise expected(
                "clips encoded by libx264 in yuv420p",
                got=f"{self.encoding.codec} in {self.encoding.pix_fmt}",
                do="leave both out of `encoding`: closed-GOP H.264 is what every decoder here reads exactly",
            )

    def fingerprint(self) -> dict[str, Any]:
        """What decides the content, as JSON has it."""
        values = {key: value for key, value in dataclasses.asdict(self).items() if key not in _WITHOUT_EFFECT}
        return json.loads(json.dumps(values))
