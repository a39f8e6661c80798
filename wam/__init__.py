"""wam: world-action models, one transformer over named streams of video, actions and language."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from wam.explore.explorer import Explorer

__version__ = "0.1.0"


def load(run: str | Path, *, data: str | Path | None = None) -> Explorer:
    """A trained model to ask questions of, from its run or checkpoint folder: see `wam.explore.explorer`."""
    from wam.explore.explorer import load as opened  # here, so that `import wam` stays light

    return opened(run, data=data)
