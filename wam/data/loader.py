"""`BatchLoader`: batches made ahead of time in threads, in order, with the time spent waiting for them on record."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from wam.contracts import Batch, expected
from wam.data.courier import Courier
from wam.data.mixture import Mixture
from wam.data.sampler import ResumableSampler


class BatchLoader:
    """Endless batches of a mixture, or `steps` of them for each iteration.

    batch_size counts windows over all ranks; a rank gets its share. The sampler's position follows the batches handed
    out, not those made ahead, so its state at any moment resumes with the very next batch.
    courier: takes batches to another device while the consumer works.
    wait_seconds: time the consumer spent waiting; wait_share: over the time since the first batch was asked for.
    """

    def __init__(
        self,
        mixture: Mixture,
        sampler: ResumableSampler,
        *,
        batch_size: int,
        workers: int = 1,
        prefetch: int = 4,
        steps: int | None = None,
        courier: Courier | None = None,
    ) -> None:
        if workers < 0 or prefetch < 1:
            raise expected("workers >= 0 and prefetch >= 1", got=f"{workers} and {prefetch}", do="correct the numbers")
        self.mixture, self.sampler, self.batch_size = mixture, sampler, batch_size
        self.workers, self.prefetch, self.steps, self.courier = workers, prefetch, steps, courier
        self.wait_seconds, self.batches = 0.0, 0
        self._started: float | None = None

    @property
    def wait_share(self) -> float:
        if self._started is None:
            return 0.0
        return self.wait_seconds / max(time.perf_counter() - self._started, 1e-9)

    def reset_timing(self) -> None:
        """Forget the time waited so far, as after a warm-up."""
        self.wait_seconds, self.batches, self._started = 0.0, 0, time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        if self._started is None:
            self._started = time.perf_counter()
        if self.workers == 0:
            yield from self._iterate_here()
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="batches")
        pending: deque[Future[Batch]] = deque()
        ahead, made, given = self.sampler.position, 0, 0
        try:
            while self.steps is None or given < self.steps:
                while len(pending) < self.prefetch and (self.steps is None or made < self.steps):
                    pending.append(pool.submit(self._make, self.sampler.shard(ahead, self.batch_size)))
                    ahead, made = ahead + self.batch_size, made + 1
                begun = time.perf_counter()
                batch = pending.popleft().result()
                if self.courier is not None:
                    self.courier.deliver(batch)
                given += 1
                self._account(begun)
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _iterate_here(self) -> Iterator[Batch]:
        given = 0
        while self.steps is None or given < self.steps:
            begun = time.perf_counter()
            batch = self._make(self.sampler.shard(self.sampler.position, self.batch_size))
            if self.courier is not None:
                self.courier.deliver(batch)
            given += 1
            self._account(begun)
            yield batch

    def _make(self, draws: np.ndarray) -> Batch:
        batch = self.mixture.batch(draws)
        return batch if self.courier is None else self.courier.fetch(batch)

    def _account(self, begun: float) -> None:
        self.wait_seconds += time.perf_counter() - begun
        self.batches += 1
        self.sampler.position += self.batch_size
