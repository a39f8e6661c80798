"""Imagined futures, what really came beside them, and how they differ: objects that display and save themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from wam.contracts import ActionSpace, WamError, expected
from wam.evaluation.pictures import to_uint8
from wam.explore.starts import Start
from wam.geometry.grid import OCCUPIED, VoxelConfig

ENDINGS = (".png", ".gif", ".webp", ".mp4", ".rrd")


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What came of the start. frames (R, V, T, H, W, 3) uint8; filled (R, 1 + T, X, Y, Z) bool, or None where it is not known;
    colours (R, 1 + T, X, Y, Z, 4) uint8 of it, or None.
    source: who says so. each: whether every row has its own, or the same came of all."""

    frames: np.ndarray
    source: str
    each: bool
    filled: np.ndarray | None = None
    colours: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Futures:
    """R imagined futures of one start.

    names: what tells the rows apart. frames (R, V, T, H, W, C) float32 in [0, 1], `offsets` frames ahead. actions (R, L, A)
    that they were told or drawn with, or None. voxels (R, 1 + T, X, Y, Z): how likely each is filled, the present first, and
    colours (R, 1 + T, X, Y, Z, 3) uint8 of them, where the model says any.
    instructions: R sentences. steps: of sampling. title: what was asked.
    """

    start: Start
    title: str
    names: tuple[str, ...]
    frames: np.ndarray
    offsets: tuple[int, ...]
    instructions: tuple[str, ...]
    steps: int
    actions: np.ndarray | None = None
    space: ActionSpace | None = None
    voxels: np.ndarray | None = None
    colours: np.ndarray | None = None
    grid: VoxelConfig | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Futures({self.title!r}: {', '.join(self.names)}; {max(self.seconds):.2f} s ahead)"

    @property
    def seconds(self) -> tuple[float, ...]:
        """(T,): how far ahead the frames lie."""
        return tuple(offset / self.start.rate_hz for offset in self.offsets)

    @property
    def pictures(self) -> np.ndarray:
        """(R, V, T, H, W, 3) uint8."""
        return to_uint8(self.frames)

    @property
    def variance(self) -> np.ndarray:
        """(V, T, H, W): over the rows, mean over colours. Where it is small, the futures agree."""
        if len(self) < 2:
            raise expected("two futures or more", got="one", do="ask for more, e.g. seeds=4")
        return self.frames.var(axis=0).mean(axis=-1)

    @property
    def spread(self) -> float:
        """Standard deviation over the rows, mean over pixels, as a share of the brightness range."""
        return float(np.sqrt(self.variance).mean())

    @cached_property
    def _known(self) -> Truth | str:
        """The truth, or why there is none. Actions that were not the recorded ones are carried out in the simulator."""
        start, acted = self.start, self.actions
        recorded = start.recorded(self.offsets)
        if acted is not None:
            done = start.actions(acted.shape[1])
            if done is None or not all(np.array_equal(row, done) for row in acted):
                return self._simulated(acted)
        if recorded is None:
            return "nothing was recorded for so long after this start"
        cells = start.batch.occupancy
        known = colours = None
        if cells is not None and cells.shape[1] == 1 + len(self.offsets):
            known = np.repeat((cells == OCCUPIED).numpy(), len(self), axis=0)
            paint = start.batch.occupancy_colour
            colours = None if paint is None else np.repeat(paint.numpy(), len(self), axis=0)
        frames = np.broadcast_to(recorded, (len(self), *recorded.shape))
        return Truth(frames=frames, source="recorded", each=False, filled=known, colours=colours)

    def _simulated(self, actions: np.ndarray) -> Truth | str:
        try:
            grid = self.grid if self.voxels is not None else None
            found = self.start.simulated(actions, self.offsets, grid=grid, colour=self.colours is not None)
        except WamError as error:
            return str(error)
        if found is None:
            return "there is no simulator's state to return to, so nobody knows what these actions lead to"
        return Truth(frames=found.frames, source="simulator", each=True, filled=found.filled, colours=found.colours)

    @property
    def truth(self) -> Truth | None:
        """What really came: recorded, or from the simulator returned to this start. None where it cannot be known; the picture
        then says why."""
        return self._known if isinstance(self._known, Truth) else None

    @property
    def why_no_truth(self) -> str:
        return self._known if isinstance(self._known, str) else ""

    @property
    def errors(self) -> np.ndarray | None:
        """(R,): difference to the truth, mean over pixels, as a share of the brightness range; None without a truth."""
        if self.truth is None:
            return None
        return np.abs(self.frames - self.truth.frames / 255).mean(axis=(1, 2, 3, 4, 5))

    @property
    def filled(self) -> np.ndarray | None:
        """(R, 1 + T, X, Y, Z) bool: voxels more likely filled than not."""
        return None if self.voxels is None else self.voxels > 0.5

    def __getitem__(self, name: str) -> np.ndarray:
        """(V, T, H, W, C): the future of that name."""
        if name not in self.names:
            raise expected(f"a future among {', '.join(self.names)}", got=repr(name), do="name one of them")
        return self.frames[self.names.index(name)]

    def save(self, path: str | Path, *, pace: float | None = None) -> Path:
        """As a film strip (.png), an animation (.gif, .webp, .mp4), or a recording for the rerun viewer (.rrd).

        pace: frames a second of an animation; by default as fast as it happens, but three seconds long at least.
        """
        path = Path(path)
        if path.suffix not in ENDINGS:
            raise expected(f"a path that ends in {', '.join(ENDINGS)}", got=str(path), do="choose one of them")
        from wam.explore import display

        display.save(self, path, pace=pace)
        return path

    @cached_property
    def _strip(self) -> bytes:
        from wam.explore import display

        return display.strip_png(self)

    def _repr_png_(self) -> bytes:
        return self._strip

    def _repr_html_(self) -> str:
        from wam.explore import display

        return display.html(self)


def thinned(count: int, most: int) -> Sequence[int]:
    """At most `most` of `count` places, evenly, the last one always among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
