"""Processes that turn videos into clips, of which any may die: a decoder that crashes on a file costs one clip.

Each worker has one video in hand and reports every clip as soon as it lies on the disk. If it dies or falls silent, a new
one goes on after the last clip; if that dies there too, the next stretch of a clip's length is recorded as crashed and
left out. Workers are spawned, leave SIGINT to the parent, and end when it does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from wam.contracts import WamError
from wam.data.curation.config import CurateConfig
from wam.data.curation.journal import store_clip
from wam.data.curation.records import Clip, Event, Finished, Opened, Reason, Rejection, Unit

Stage = Callable[[Unit, CurateConfig], Iterator[Event]]
_START = 120.0  # seconds that a process may take to start, on a busy machine
_CRASHES = 3  # stretches of one file that may be lost before the rest of it is given up


@dataclass
class _Task:
    """reached: seconds of the source that are dealt with. opened: whether the header could be read."""

    unit: Unit
    reached: float | None
    opened: bool = False
    tried_again: bool = False
    crashes: int = 0


class WorkerPool:
    """`run` units in `processes` processes. Close it, or use it in a `with`."""

    def __init__(self, config: CurateConfig, folder: Path, *, processes: int, stage: Stage) -> None:
        self.config, self.folder, self.stage = config, folder, stage
        self.workers = [_Worker(self) for _ in range(max(1, processes))]

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for worker in self.workers:
            worker.end()

    def run(self, units: Iterable[Unit]) -> Iterator[Event]:
        """The events of all units, as they come; clips are on the disk when they do.

        Raises WamError for a disk that cannot be written.
        """
        waiting: Iterator[_Task] = (_Task(unit=unit, reached=unit.start) for unit in units)
        while True:
            for worker in self.workers:
                if worker.task is None and (task := next(waiting, None)) is not None:
                    worker.give(task)
            busy = [worker for worker in self.workers if worker.task is not None]
            if not busy:
                return
            ready = wait([worker.pipe for worker in busy], timeout=1.0)
            for worker in [worker for worker in busy if worker.pipe in ready]:
                yield from worker.listen()
            for worker in busy:
                limit = self.config.patience if worker.ready else max(self.config.patience, _START)
                if worker.task is not None and time.monotonic() - worker.heard > limit:
                    worker.kill()
                    yield from worker.lost("stuck", f"gave no sign for {self.config.patience:g} s")


class _Worker:
    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.task: _Task | None = None
        self.pipe, self.process = self._begin()

    def give(self, task: _Task) -> None:
        self.task, self.heard = task, time.monotonic()
        unit = Unit(item=task.unit.item, start=task.reached)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died while idle: listening finds that
            self.pipe.send(unit)

    def listen(self) -> Iterator[Event]:
        """The next message, or what follows from the process's end."""
        task = self.task
        assert task is not None
        try:
            kind, content = self.pipe.recv()
        except (EOFError, ConnectionResetError, BrokenPipeError):
            self.process.join()
            yield from self.lost("crashed", _ending(self.process.exitcode))
            return
        self.heard = time.monotonic()
        if kind == "ready":
            self.ready = True
            return
        if kind == "stop":
            raise WamError(content)
        event: Event = content
        if isinstance(event, Opened):
            task.opened = True
        elif isinstance(event, Clip | Rejection) and event.end is not None:
            task.reached, task.tried_again = max(event.end, task.reached or event.end), False
        elif isinstance(event, Finished):
            self.task = None
        yield event

    def lost(self, reason: Reason, how: str) -> Iterator[Event]:
        """The process is gone: try once more from where it was, then leave out a clip's length, at last the rest."""
        task = self.task
        assert task is not None
        self.pipe.close()
        self.pipe, self.process = self._begin()
        item, config = task.unit.item, self.pool.config
        if not task.tried_again:
            task.tried_again = True
            self.give(task)
            return
        task.crashes += 1
        task.tried_again = False
        start = task.reached
        if task.opened and task.crashes < _CRASHES:
            task.reached = (start or 0.0) + config.max_seconds
            detail = f"the decoder {how}, twice; went on {config.max_seconds:g} s later"
            yield Rejection(
                item=item.id, source=item.name, reason=reason, detail=detail, start=start or 0.0, end=task.reached
            )
            self.give(task)
            return
        detail = f"the decoder {how}, twice" + ("; the rest was given up" if task.opened else " on opening the file")
        yield Rejection(item=item.id, source=item.name, reason=reason, detail=detail, start=start)
        self.task = None
        yield Finished(item=item.id, source=item.name)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def end(self) -> None:
        self.pipe.close()  # an idle worker ends at this
        if self.task is not None:
            self.process.kill()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.kill()

    def _begin(self) -> tuple[Connection, SpawnProcess]:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        arguments = (there, self.pool.config, self.pool.folder, self.pool.stage)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        there.close()
        self.heard, self.ready = time.monotonic(), False
        return here, process


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with status {code}"


def _serve(pipe: Connection, config: CurateConfig, folder: Path, stage: Stage) -> None:
    """In the worker: units come, events go."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    single_threaded()
    pipe.send(("ready", None))
    while True:
        try:
            unit = pipe.recv()
        except EOFError:
            return
        try:
            for event in work(unit, config, folder, stage):
                pipe.send(("event", event))
        except WamError as error:
            pipe.send(("stop", str(error)))
            return
        except BrokenPipeError:
            return


def work(unit: Unit, config: CurateConfig, folder: Path, stage: Stage) -> Iterator[Event]:
    """One unit's events, its clips put into the folder. What goes wrong with a file in a way nobody thought of is a
    rejection with the error's name; a disk that cannot be written is a WamError."""
    begun = time.process_time()
    try:
        for event in stage(unit, config):
            if isinstance(event, Finished):
                yield dataclasses.replace(event, core_seconds=time.process_time() - begun)
            else:
                yield store_clip(folder, event) if isinstance(event, Clip) else event
    except (WamError, MemoryError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"[:200]
        yield Rejection(item=unit.item.id, source=unit.item.name, reason="failed", detail=detail, start=unit.start)
        yield Finished(item=unit.item.id, source=unit.item.name)


def single_threaded() -> None:
    """One worker is one core's work: OpenCV must not start a pool of its own."""
    try:
        import cv2
    except ModuleNotFoundError:
        return  # the stage says what is missing
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
