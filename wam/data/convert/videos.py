"""A plain folder of videos as an action-free dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from wam.contracts import expected
from wam.data.convert.frames import VIDEO_ENDINGS, cover, decode
from wam.data.convert.source import SourceEpisode
from wam.data.video import probe


def find_videos(path: Path) -> list[Path]:
    """The videos of a folder (at any depth), or the one file given."""
    if path.is_file():
        return [path] if path.suffix.lower() in VIDEO_ENDINGS else []
    return sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_ENDINGS and p.is_file())


class VideoFolderSource:
    """One episode per video, longer ones cut into pieces of at most `max_frames` frames; camera "video".

    Videos of different rates are resampled to `fps` by repeating or dropping whole frames, videos of different sizes
    cover `image_size`; where they differ and nothing is asked for, the error says what they are. Sentences come from
    `captions`, or from a JSON file beside the videos that maps file names to sentences.
    """

    robot_type = "none"
    names: Mapping[str, tuple[str, ...]] = {}

    def __init__(
        self,
        path: Path,
        *,
        fps: float | None = None,
        image_size: tuple[int, int] | None = None,
        max_frames: int = 1000,
        captions: Mapping[str, str] | None = None,
    ) -> None:
        files = find_videos(path)
        if not files:
            raise expected(
                f"videos ({', '.join(VIDEO_ENDINGS)}) at {path}", got="none", do="give a file or a folder of them"
            )
        facts = {file: probe(file) for file in files}
        self.fps = fps or _common({f.fps for f in facts.values()}, "rates", "fps=N")
        self.size = image_size or _common({(f.height, f.width) for f in facts.values()}, "sizes", "image_size=[H,W]")
        self._captions = dict(captions or {}) or _captions_beside(files)
        self._pieces: list[tuple[Path, int, int]] = []
        for file, fact in facts.items():
            total = max(round(fact.frames * self.fps / fact.fps), 1)
            self._pieces += [(file, i, min(i + max_frames, total)) for i in range(0, total, max_frames)]
        self._facts = facts
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> SourceEpisode:
        file, start, stop = self._pieces[index]
        fact = self._facts[file]
        wanted = np.floor((np.arange(start, stop) + 0.5) * fact.fps / self.fps).astype(int).clip(0, fact.frames - 1)
        kept, position = [], 0
        for i, frame in enumerate(islice(decode(file), int(wanted[-1]) + 1)):
            if i == wanted[position]:
                small = frame if frame.shape[:2] == self.size else cover(frame, self.size)
                while position < len(wanted) and wanted[position] == i:
                    kept.append(small)
                    position += 1
        if position < len(wanted) - 2:
            raise expected(
                f"{fact.frames} frames in {file}, as its header says", got=int(wanted[position]),
                do="fetch the file again, or leave it out with skip_damaged=true",
            )  # fmt: skip
        return SourceEpisode(images={"video": np.stack(kept)}, task=self._captions.get(file.name, ""))


def _common(values: set, what: str, option: str):
    if len(values) > 1 or 0 in values:
        shown = ", ".join(str(v) for v in sorted(values)[:6])
        raise expected(f"videos of one {what[:-1]}", got=f"{what} {shown}", do=f"add {option} to bring them to one")
    return next(iter(values))


def _captions_beside(files: list[Path]) -> dict[str, str]:
    """{file name: sentence} from JSON files in the videos' folders that map just that."""
    found: dict[str, str] = {}
    names = {f.name for f in files}
    for folder in sorted({f.parent for f in files}):
        for file in sorted(folder.glob("*.json")):
            try:
                content = json.loads(file.read_text())
            except (OSError, json.JSONDecodeError):
                continue  # some other file that happens to lie there
            if isinstance(content, dict):
                found |= {k: v for k, v in content.items() if k in names and isinstance(v, str)}
    return found
