"""`ResumableSampler`: which window comes at which place, as a pure function of the seed and the place.

The draws form one endless global sequence. A batch of any rank is a slice of it, one rank's share after the other's, so the
order is the same for any number of ranks, and a rank's share is what one rank alone would see as a part of its step.
Resuming is setting the position. Shares are exact in every block of draws; within a dataset every
window comes once before any comes again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from wam.contracts import expected

BLOCK = 16384  # draws after which the datasets' shares hold exactly; so shares are multiples of 1 / BLOCK


class Sized(Protocol):
    @property
    def sizes(self) -> Sequence[int]: ...

    @property
    def weights(self) -> Sequence[float]: ...


class ResumableSampler:
    """Draws (dataset, window) pairs from a mixture, or from anything with `sizes` and `weights`.

    position: global draws already taken, over all ranks; `take` advances it.
    """

    def __init__(self, mixture: Sized, *, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        if not 0 <= rank < ranks:
            raise expected(f"a rank from 0 to {ranks - 1}", got=rank, do="check the launcher")
        self.sizes, self.weights = list(mixture.sizes), [float(weight) for weight in mixture.weights]
        self.seed, self.rank, self.ranks, self.position = seed, rank, ranks, 0
        self._quotas = _quotas(self.weights)
        self._kept: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()

    def at(self, start: int, count: int) -> np.ndarray:
        """The global draws start .. start + count, (count, 2) int64 of (dataset, window)."""
        parts = []
        while count > 0:
            block, within = divmod(start, BLOCK)
            size = min(count, BLOCK - within)
            parts.append(self._block(block)[within : within + size])
            start, count = start + size, count - size
        return np.concatenate(parts) if parts else np.empty((0, 2), np.int64)

    def shard(self, start: int, batch_size: int) -> np.ndarray:
        """This rank's share, (batch_size / ranks, 2), of the global batch that begins at a position."""
        if batch_size < 1 or batch_size % self.ranks:
            raise expected(
                f"a global batch size that {self.ranks} ranks divide",
                got=batch_size,
                do="choose a multiple of the ranks",
            )
        share = batch_size // self.ranks
        return self.at(start + self.rank * share, share)

    def take(self, batch_size: int) -> np.ndarray:
        """This rank's share of the next global batch."""
        draws = self.shard(self.position, batch_size)
        self.position += batch_size
        return draws

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "seed": self.seed, "sizes": self.sizes, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a saved position, with any number of ranks. Raises WamError if the data or the seed differ."""
        own = self.state_dict()
        if differ := [key for key in ("seed", "sizes", "weights") if state.get(key) != own[key]]:
            raise expected(
                f"the sampler's {differ[0]} as when it was saved, {state.get(differ[0])}",
                got=own[differ[0]],
                do="resume with the same data, weights and seed, or start a new run",
            )
        self.position = int(state["position"])

    def _block(self, block: int) -> np.ndarray:
        return self._keep((-1, block), lambda: self._draw_block(block))

    def _draw_block(self, block: int) -> np.ndarray:
        sources = np.repeat(np.arange(len(self.sizes)), self._quotas)
        if len(self.sizes) > 1:
            sources = self._generator(0, block).permutation(sources)
        windows = np.empty(BLOCK, np.int64)
        for source, quota in enumerate(self._quotas):
            counts = block * quota + np.arange(quota)  # the how-manieth draw of this dataset each one is
            epochs, places = np.divmod(counts, self.sizes[source])
            drawn = np.empty(quota, np.int64)
            for epoch in np.unique(epochs):
                drawn[epochs == epoch] = self._order(source, int(epoch))[places[epochs == epoch]]
            windows[sources == source] = drawn
        return np.stack([sources, windows], axis=1)

    def _order(self, source: int, epoch: int) -> np.ndarray:
        """The order of one dataset's windows in one of its epochs."""
        return self._keep((source, epoch), lambda: self._generator(1, source, epoch).permutation(self.sizes[source]))

    def _generator(self, *path: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *path])))

    def _keep(self, key: tuple[int, ...], make: Any) -> np.ndarray:
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > 4 + 2 * len(self.sizes):
                self._kept.popitem(last=False)
        return self._kept[key]


def _quotas(weights: Sequence[float]) -> np.ndarray:
    """Whole draws of a block for each dataset: largest remainders, at least one each."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * BLOCK
    quotas = np.maximum(np.floor(exact).astype(np.int64), 1)
    for place in np.argsort(np.floor(exact) - exact, kind="stable")[: max(0, BLOCK - int(quotas.sum()))]:
        quotas[place] += 1
    quotas[int(np.argmax(quotas))] += BLOCK - int(quotas.sum())
    return quotas
