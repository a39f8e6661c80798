"""Progress with time left: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType


def duration(seconds: float) -> str:
    """1:05:09, 12:34 or 7 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """`with Progress("train", total) as progress: progress.update(done, note="loss 0.12")`.

    `done` counts from `start`, work of an earlier run, which says nothing about the speed of this one. total 0: not known
    yet; it may be set later.
    """

    def __init__(self, label: str, total: int, *, start: int = 0, every: float = 10.0, quiet: bool = False) -> None:
        self.label, self.total, self.start, self.every, self.quiet = label, total, start, every, quiet
        self.live = sys.stderr.isatty()
        self._began = self._printed = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def update(self, done: int, *, note: str = "") -> None:
        now = time.monotonic()
        pause = 0.2 if self.live else self.every
        if self.quiet or (now - self._printed < pause and (done < self.total or not self.total)):
            return
        self._printed = now
        elapsed, fresh = now - self._began, done - self.start
        known = self.total and fresh > 0
        left = f"{duration(elapsed / fresh * (self.total - done))} left" if known else "timing"
        line = f"{self.label} {done}{f'/{self.total}' if self.total else ''}  {left}  {note}".rstrip()
        if self.live:
            sys.stderr.write(f"\r\x1b[K{line}")
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live and not self.quiet:
            sys.stderr.write("\n")
