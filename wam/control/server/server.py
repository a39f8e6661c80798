"""The server: connections in, sessions, errors that reach only their own client, and a stop that finishes what it began.

A connection that misbehaves (a malformed or oversize frame, wrong keys, silence, vanishing) ends by itself; nothing that it
sends is computed in the event loop, and the policy sees only observations that were checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from wam.contracts import WamError, expected
from wam.control.codec import Limits, pack, unpack
from wam.control.server.batcher import Batcher
from wam.control.server.config import ServeConfig
from wam.control.server.dialects import Ask, Timing, make_dialect
from wam.control.server.door import STOPS, Door, State, tls_context
from wam.control.server.keys import KeyMap
from wam.control.server.live import Live
from wam.control.server.metrics import Metrics
from wam.control.server.served import Served

T = TypeVar("T")
LOG = logging.getLogger("wam.serve")
QUIET = logging.getLogger("wam.serve.websocket")
QUIET.setLevel(logging.CRITICAL)  # a client's malformed handshake is no error of the server's
GENERIC = "internal error; the server's log says more"
GRACE_S = 0.2  # for requests that were on their way when the stop came
MALFORMED = (1002, 1007, 1009)  # how a websocket ends whose client broke the protocol or sent too much at once


class VanishedError(Exception):
    """The client left before its answer."""


class PolicyServer:
    """Serves a policy until told to stop.

    `await server.start()` warms the policy up and only then listens; `await server.drain()` answers what was asked and closes.
    Raises WamError for settings that do not fit the model, an address in use, or an open address without a token.
    """

    def __init__(self, served: Served, config: ServeConfig | None = None) -> None:
        self.served, self.config = served, config or ServeConfig()
        self.config.validate()
        self.keys = KeyMap(self.config.keys, served, prompt_characters=self.config.prompt_characters)
        self.dialect = make_dialect(self.config, served, self.keys)
        self.limits = Limits(frame_bytes=self.config.frame_bytes)
        self.greeting = pack(self.dialect.metadata())
        self.metrics = Metrics()
        self.door, self.tls = Door(self.config, self.metrics, self.state), tls_context(self.config)
        self.port = 0
        self.warm_s = 0.0
        self.draining = False
        self._numbers = itertools.count(1)
        self._sessions: set[ServerConnection] = set()
        self._busy: set[ServerConnection] = set()
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="reader")
        self._stack = contextlib.AsyncExitStack()
        self._listening: Server | None = None

    # life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        c = self.config
        self.batcher = await self._stack.enter_async_context(
            Batcher(self.served.policy, size=c.batch, gather_s=c.gather_ms / 1e3, metrics=self.metrics)
        )
        self.live = Live(self.served, self.batcher, c.live)
        self.warm_s = await self.batcher.warm_up(self.served.example())
        try:
            self._listening = await serve(
                self._connection,
                c.host,
                c.port,
                process_request=self._request,
                compression=None,
                max_size=c.frame_bytes,
                max_queue=2,
                ping_interval=c.ping_s,
                ping_timeout=c.pong_s,
                server_header=None,
                ssl=self.tls,
                logger=QUIET,
            )
        except OSError as error:
            raise expected(f"to listen on {c.host}:{c.port}", got=error, do="choose another port or host") from error
        self.port = self._listening.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{'wss' if self.config.certificate else 'ws'}://{host}:{self.port}"

    async def drain(self) -> None:
        """Let nobody in any more, answer what was asked, say goodbye (1001) and close."""
        self.draining = True
        await asyncio.sleep(GRACE_S)
        goodbyes = [asyncio.create_task(socket.close(1001, STOPS)) for socket in self._sessions - self._busy]
        until = time.monotonic() + self.config.drain_s
        while self._busy and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if self._listening is not None:
            self._listening.close()
            await self._listening.wait_closed()
        await asyncio.gather(*goodbyes, return_exceptions=True)
        await self._stack.aclose()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def state(self) -> State:
        return State(
            sessions=len(self._sessions),
            viewers=self.live.viewers,
            busy_s=self.batcher.busy_s(),
            draining=self.draining,
        )

    def _request(self, socket: ServerConnection, request: Request) -> Response | None:
        return self.door.answer(request.path, request.headers)

    # connections ------------------------------------------------------------------------------------------------

    async def _connection(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        try:
            if socket.request.path.partition("?")[0] == "/live":
                with self.metrics.viewers.track_inprogress():
                    await self.live.watch(socket)
            elif len(self._sessions) >= self.config.sessions:  # others came in between the request and the handshake
                await socket.close(1013, "too many sessions")
            else:
                self._sessions.add(socket)
                with self.metrics.sessions.track_inprogress():
                    await self._session(socket, next(self._numbers))
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code in MALFORMED:
                self.metrics.outcome("refused")
        except Exception:
            LOG.exception("a connection failed")
        finally:
            self._sessions.discard(socket)

    async def _session(self, socket: ServerConnection, number: int) -> None:
        """Answer one client's requests one after another until it leaves, errs or is silent too long."""
        gone = asyncio.ensure_future(socket.wait_closed())
        previous: float | None = None
        try:
            async with self._slots() as slot_of:
                await self._send(socket, self.greeting)
                while not self.draining:
                    async with asyncio.timeout(self.config.idle_s):
                        frame = await socket.recv()
                    self._busy.add(socket)
                    try:
                        previous = await self._answer(socket, frame, number, slot_of, gone, previous)
                    finally:
                        self._busy.discard(socket)
                await socket.close(1001, STOPS)
        except TimeoutError:
            await socket.close(1001, "silent for too long, or took no answer")
        except VanishedError:
            self.metrics.outcome("vanished")
        except _ToldError as told:
            await self._send(socket, str(told))
            await socket.close(1011, "the error is in the frame before")
        finally:
            gone.cancel()
            self.live.gone(number)

    @contextlib.asynccontextmanager
    async def _slots(self) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
        """Slots of a connection's sessions by name; its eldest session gives way to one too many. All are given back."""
        held: dict[str, int] = {}

        async def slot_of(session: str) -> int:
            if session not in held:
                if len(held) >= self.dialect.sessions_each:
                    await self.batcher.close_slot(held.pop(next(iter(held))))
                held[session] = self.batcher.open_slot()
            held[session] = held.pop(session)  # youngest
            return held[session]

        try:
            yield slot_of
        finally:
            for slot in held.values():
                await self.batcher.close_slot(slot)

    async def _answer(
        self,
        socket: ServerConnection,
        frame: str | bytes,
        number: int,
        slot_of: Callable[[str], Awaitable[int]],
        gone: asyncio.Future[None],
        previous: float | None,
    ) -> float:
        """Answer one request; returns the milliseconds it took."""
        begun = time.perf_counter()
        ask = await self._blaming(
            "refused", asyncio.get_running_loop().run_in_executor(self._readers, self._read, frame)
        )
        slot = await slot_of(ask.session)
        if ask.begins or ask.observation is None:
            await self._blaming("failed", self.batcher.forget(slot))
        if ask.observation is None:
            await self._send(socket, self.dialect.forgotten)
            return 1e3 * (time.perf_counter() - begun)
        answer = await self._blaming("failed", _unless(gone, self.batcher.act(slot, ask.observation)))
        total = 1e3 * (time.perf_counter() - begun)
        try:
            await self._send(socket, self.dialect.reply(answer, Timing(total_ms=total, previous_ms=previous)))
        except ConnectionClosed as closed:
            raise VanishedError from closed
        self.metrics.outcome("answered")
        self.metrics.request_seconds.observe(time.perf_counter() - begun)
        self.live.note(number, slot, ask.observation, answer, total)
        return 1e3 * (time.perf_counter() - begun)

    def _read(self, frame: str | bytes) -> Ask:
        return self.dialect.read(unpack(frame, self.limits))  # type: ignore[arg-type]

    async def _blaming(self, whom: str, awaited: Awaitable[T]) -> T:
        """An error as what the client is told: in full if it is the client's own, else in full only for debugging."""
        try:
            return await awaited
        except (ConnectionClosed, VanishedError):
            raise
        except Exception as error:
            if whom == "refused" and isinstance(error, WamError):
                self.metrics.outcome("refused")
                raise _ToldError(str(error)) from error
            self.metrics.outcome("failed")
            LOG.exception("a request failed")
            raise _ToldError(traceback.format_exc() if self.config.debug else GENERIC) from error

    async def _send(self, socket: ServerConnection, frame: str | bytes) -> None:
        async with asyncio.timeout(self.config.send_s):
            await socket.send(frame)


class _ToldError(Exception):
    """What a client is told before its connection is closed."""


async def _unless(gone: asyncio.Future[None], awaited: Awaitable[T]) -> T:
    """The result, or VanishedError as soon as the client is gone: what was still to be computed for it is not."""
    task = asyncio.ensure_future(awaited)
    await asyncio.wait({gone, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        return task.result()
    task.cancel()
    raise VanishedError
