"""Processes that run the simulator, and those that record episodes with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from wam.contracts import expected
from wam.simulation.config import CollectConfig
from wam.simulation.environment import Environment
from wam.simulation.record import Job, Recorded, record_expert, record_play

_AHEAD = 2  # episodes in hand for each process


class Studio:
    """Records jobs of one configuration; keeps the environments it has made."""

    def __init__(self, config: CollectConfig) -> None:
        self.config = config
        self._environments: dict[str, Environment] = {}

    def record(self, job: Job) -> Recorded:
        config = self.config
        if job.environment not in self._environments:
            self._environments[job.environment] = config.make(job.environment)
        environment = self._environments[job.environment]
        if job.play:
            return record_play(environment, job, seed=config.seed, steps=config.play_steps)
        return record_expert(
            environment,
            job,
            seed=config.seed,
            noise=config.noise,
            attempts=config.attempts,
            settle_steps=config.settle_steps,
            astray=config.astray,
        )

    def close(self) -> None:
        for environment in self._environments.values():
            environment.close()


def recordings(config: CollectConfig, jobs: Sequence[Job], *, processes: int) -> Generator[Recorded]:
    """The jobs' episodes in the order of the jobs. One process means this one. Raises WamError if a worker dies."""
    processes = min(processes, len(jobs))
    if processes <= 1:
        studio = Studio(config)
        try:
            yield from map(studio.record, jobs)
        finally:
            studio.close()
        return
    waiting, pending = iter(jobs), deque[Future[Recorded]]()
    with worker_pool(processes, _begin, config) as pool:
        for job in waiting:
            pending.append(pool.submit(_record, job))
            if len(pending) >= _AHEAD * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextmanager
def worker_pool(processes: int, begin: Callable[..., None], *arguments: Any) -> Generator[ProcessPoolExecutor]:
    """Spawned processes, each of which has called begin(*arguments). They leave SIGINT to the parent and end when it does.

    Raises WamError if one dies; what it was asked and has not done is then dropped.
    """
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(begin, arguments),
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise expected(
            "the worker processes to live",
            got="one that ended without a word (out of memory, or killed)",
            do="resume, with fewer processes if memory is short",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin(*arguments)


_studio: Studio | None = None  # of a worker process


def _begin(config: CollectConfig) -> None:
    global _studio
    _studio = Studio(config)


def _record(job: Job) -> Recorded:
    assert _studio is not None
    return _studio.record(job)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
