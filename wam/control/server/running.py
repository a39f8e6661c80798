"""Run a server: until a signal, in a thread beside its clients, or in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol, TypeVar

from wam.contracts import WamError, expected
from wam.control.server.config import ServeConfig
from wam.control.server.served import Served, load_served
from wam.control.server.server import PolicyServer


class Runs(Protocol):
    """What is started, listens, and finishes what it began."""

    async def start(self) -> None: ...
    async def drain(self) -> None: ...


R = TypeVar("R", bound=Runs)


def run_until_stopped(make: Callable[[], R], *, ready: Callable[[R], None]) -> None:
    """Run a server in this thread, the main one, until SIGTERM or SIGINT; then drain it and return."""

    async def run() -> None:
        server, stop = make(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await server.start()
        ready(server)
        await stop.wait()
        await server.drain()

    asyncio.run(run())


def serve_until_stopped(served: Served, config: ServeConfig, *, ready: Callable[[PolicyServer], None]) -> None:
    """Serve a policy until SIGTERM or SIGINT; then answer what was asked and return."""
    run_until_stopped(lambda: PolicyServer(served, config), ready=ready)


@contextlib.contextmanager
def in_thread(make: Callable[[], R]) -> Iterator[R]:
    """A server in a thread; drained at the end."""
    started: list[R | BaseException] = []
    up, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        try:
            server = make()
            await server.start()
        except BaseException as error:
            started.append(error)
            return
        else:
            started.append(server)
        finally:
            up.set()
        await stop.wait()
        await server.drain()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="server", daemon=True)
    thread.start()
    up.wait()
    if isinstance(started[0], BaseException):
        raise started[0]
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@contextlib.contextmanager
def serving(served: Served, config: ServeConfig) -> Iterator[PolicyServer]:
    """A policy's server in a thread; drained at the end. `port=0` in the config takes a free port."""
    with in_thread(lambda: PolicyServer(served, config)) as server:
        yield server


@contextlib.contextmanager
def served_apart(checkpoint: Path, config: ServeConfig, *, wait_s: float = 120.0) -> Iterator[tuple[str, BaseProcess]]:
    """(address, process) of a server of a checkpoint in a process of its own, which is told to stop at the end."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve_apart, args=(checkpoint, config, there), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(wait_s):
            raise expected(f"a server within {wait_s:g} s", got="none", do="look at what it printed")
        try:
            said, good = here.recv()
        except EOFError as error:
            raise expected("a server that starts", got="a process that ended", do="look at what it printed") from error
        if not good:
            raise WamError(said)
        yield said, process
    finally:
        process.terminate()
        process.join(config.drain_s + 10)
        if process.is_alive():
            process.kill()
            process.join()


def _serve_apart(checkpoint: Path, config: ServeConfig, there: Connection) -> None:
    def ready(server: PolicyServer) -> None:
        there.send((server.address, True))

    try:
        served = load_served(checkpoint, config.policy, image_size=config.image_size)
        serve_until_stopped(served, config, ready=ready)
    except WamError as error:
        there.send((str(error), False))
