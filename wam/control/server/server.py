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

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from wam.contracts import expected
from wam.control.codec import Limits, pack, unpack
from wam.control.server.access import read_token
from wam.control.server.batcher import Batcher
from wam.control.server.config import ServeConfig
from wam.control.server.desk import LOG, Desk, Slots, ToldError, VanishedError
from wam.control.server.dialects import Timing, make_dialect
from wam.control.server.door import STOPS, Door, State, tls_context
from wam.control.server.keys import KeyMap
from wam.control.server.live import Live
from wam.control.server.metrics import Metrics
from wam.control.server.served import Served

QUIET = logging.getLogger("wam.serve.websocket")
QUIET.setLevel(logging.CRITICAL)  # a client's malformed handshake is no error of the server's
GRACE_S = 0.2  # for requests that were on their way when the stop came
MALFORMED = (1002, 1007, 1009)  # how a websocket ends whose client broke the protocol or sent too much at once


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
        self.port = self.gr00t_port = 0
        self.warm_s = 0.0
        self.draining = False
        self._numbers = itertools.count(1)
        self._sessions: set[ServerConnection] = set()
        self._busy: set[ServerConnection] = set()
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
        self.desk = Desk(self.batcher, self.metrics, debug=c.debug)
        self._stack.callback(self.desk.close)
        self.live = Live(self.served, self.batcher, c.live)
        self.warm_s = await self.batcher.warm_up(self.served.example())
        if c.dialect == "gr00t":
            from wam.control.server.gr00t import Gr00t  # needs ZMQ

            token = read_token(c.token_file)
            gr00t = Gr00t(c, self.served, self.keys, self.desk, self.live, token=token)
            self.gr00t_port = (await self._stack.enter_async_context(gr00t)).port
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
        slots = Slots(self.batcher, self.dialect.sessions_each)
        previous: float | None = None
        try:
            await self._send(socket, self.greeting)
            while not self.draining:
                async with asyncio.timeout(self.config.idle_s):
                    frame = await socket.recv()
                self._busy.add(socket)
                try:
                    previous = await self._answer(socket, frame, number, slots, gone, previous)
                finally:
                    self._busy.discard(socket)
            await socket.close(1001, STOPS)
        except TimeoutError:
            await socket.close(1001, "silent for too long, or took no answer")
        except VanishedError:
            self.metrics.outcome("vanished")
        except ToldError as told:
            await self._send(socket, str(told))
            await socket.close(1011, "the error is in the frame before")
        finally:
            gone.cancel()
            self.live.gone(number)
            await slots.close()

    async def _answer(
        self,
        socket: ServerConnection,
        frame: str | bytes,
        number: int,
        slots: Slots,
        gone: asyncio.Future[None],
        previous: float | None,
    ) -> float:
        """Answer one request; returns the milliseconds it took."""
        begun = time.perf_counter()
        ask = await self.desk.read(lambda: self.dialect.read(unpack(frame, self.limits)))
        slot = await slots.of(ask.session)
        if ask.begins or ask.observation is None:
            await self.desk.forget(slot)
        if ask.observation is None:
            await self._send(socket, self.dialect.forgotten)
            return 1e3 * (time.perf_counter() - begun)
        answer = await self.desk.act(slot, ask.observation, gone=gone)
        total = 1e3 * (time.perf_counter() - begun)
        try:
            await self._send(socket, self.dialect.reply(answer, Timing(total_ms=total, previous_ms=previous)))
        except ConnectionClosed as closed:
            raise VanishedError from closed
        self.metrics.outcome("answered")
        self.metrics.request_seconds.observe(time.perf_counter() - begun)
        self.live.note(number, slot, ask.observation, answer, total)
        return 1e3 * (time.perf_counter() - begun)

    async def _send(self, socket: ServerConnection, frame: str | bytes) -> None:
        async with asyncio.timeout(self.config.send_s):
            await socket.send(frame)
