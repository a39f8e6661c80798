"""The page and its questions over one websocket: answered off the event loop, the newest question first, the rest dropped.

Serves `/` and `/ask` and nothing else, to this machine unless a token is given. A question that cannot be answered gets a
sentence; a frame that is no question gets one too, and the page goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from wam.contracts import WamError, expected
from wam.control.server.access import Access, read_token
from wam.control.server.door import PAGE_MAY, response
from wam.control.server.running import in_thread
from wam.explore.viewer.questions import Question, QuestionError, read_question
from wam.explore.viewer.studio import Part, Studio

T = TypeVar("T")
LOG = logging.getLogger("wam.explore")
QUIET = logging.getLogger("wam.explore.websocket")
QUIET.setLevel(logging.CRITICAL)  # a page's malformed handshake is no error of the server's
PAGE = Path(__file__).with_name("page.html")
SOCKET = "/ask"


@dataclass(kw_only=True)
class ViewerConfig:
    """host: an address other than loopback needs `token_file`. port: 0 takes a free one. pages: open at once.
    question_kib: a question's size at most. send_s: a page that takes no answer for so long is closed. threads: of torch; 0
    leaves its choice."""

    host: str = "127.0.0.1"
    port: int = 8010
    token_file: Path | None = None
    pages: int = 8
    question_kib: float = 64.0
    send_s: float = 20.0
    threads: int = 0

    def validate(self) -> None:
        for name in ("pages", "question_kib", "send_s"):
            if not getattr(self, name) > 0:
                raise expected(f"{name} above 0", got=getattr(self, name), do=f"correct {name}")


class ViewerServer:
    """`await server.start()` reads the starts and imagines once, then listens; `await server.drain()` closes."""

    def __init__(self, studio: Studio, config: ViewerConfig | None = None) -> None:
        self.studio, self.config = studio, config or ViewerConfig()
        self.config.validate()
        self.access = Access(self.config.host, read_token(self.config.token_file))
        self.port = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="studio")
        self._pages: set[ServerConnection] = set()
        self._hello = ""
        self._listening: Server | None = None

    async def start(self) -> None:
        """Raises WamError for an address in use, and for models and data that do not go together."""
        try:
            self._hello = await self._in_thread(lambda: json.dumps({"hello": self.studio.hello()}))
            self._listening = await serve(
                self._page,
                self.config.host,
                self.config.port,
                process_request=self._request,
                compression=None,
                max_size=int(self.config.question_kib * 1024),
                max_queue=4,
                server_header=None,
                logger=QUIET,
            )
        except OSError as error:
            self._thread.shutdown(wait=False)
            address = f"{self.config.host}:{self.config.port}"
            raise expected(f"to listen on {address}", got=error, do="choose another port or host") from error
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self.port = self._listening.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{self.port}/"

    async def drain(self) -> None:
        if self._listening is not None:
            self._listening.close()
            await self._listening.wait_closed()
        with contextlib.suppress(RuntimeError):
            await self._in_thread(self.studio.close)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _request(self, socket: ServerConnection, request: Request) -> Response | None:
        path, opens = request.path.partition("?")[0], "websocket" in request.headers.get("Upgrade", "").lower()
        refused = self.access.refusal(request.headers)
        if refused is None and path != (SOCKET if opens else "/"):
            refused = (404, f"expected / or {SOCKET}")
        if refused is None and opens and len(self._pages) >= self.config.pages:
            refused = (503, f"expected at most {self.config.pages} pages")
        if refused is not None:
            status, words = refused
            extra = {"WWW-Authenticate": 'Basic realm="wam", charset="UTF-8"'} if status == 401 else {}
            return response(status, f"{words}\n".encode(), **extra)
        if opens:
            return None
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": PAGE_MAY}
        return response(200, PAGE.read_bytes(), **headers)

    async def _page(self, socket: ServerConnection) -> None:
        """Answer one page until it leaves."""
        self._pages.add(socket)
        newest = _Newest()
        answering = asyncio.create_task(self._answer(socket, newest))
        try:
            await self._send(socket, self._hello)
            async for frame in socket:
                try:
                    newest.put(read_question(frame))
                except QuestionError as error:
                    await self._send(socket, json.dumps({"error": str(error), "number": error.number}))
        except (ConnectionClosed, TimeoutError):
            pass
        finally:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            self._pages.discard(socket)

    async def _answer(self, socket: ServerConnection, newest: _Newest) -> None:
        """The newest question, part by part, until a newer one comes."""
        loop = asyncio.get_running_loop()

        def say(words: str) -> None:
            told = json.dumps({"busy": words})
            loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._try_to_send(socket, told)))

        while True:
            question = await newest.get()
            parts = self.studio.answer(question, say)
            try:
                while not newest.waiting:
                    part = await self._in_thread(partial(_next, parts))
                    if part is None:
                        break
                    await self._send(socket, await asyncio.to_thread(json.dumps, part))
            except WamError as error:
                await self._try_to_send(socket, json.dumps({"error": str(error), "number": question.number}))
            except (ConnectionClosed, TimeoutError):
                await socket.close(1001, "took no answer")
                return
            except Exception:
                LOG.exception("a question failed")
                words = "the explorer failed on this question; its log says how"
                await self._try_to_send(socket, json.dumps({"error": words, "number": question.number}))

    async def _send(self, socket: ServerConnection, told: str) -> None:
        async with asyncio.timeout(self.config.send_s):
            await socket.send(told)

    async def _try_to_send(self, socket: ServerConnection, told: str) -> None:
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            await self._send(socket, told)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _next(parts: Iterator[Part]) -> Part | None:
    return next(parts, None)


class _Newest:
    """Room for one question: a newer one takes the place of one that waits."""

    def __init__(self) -> None:
        self._question: Question | None = None
        self._there = asyncio.Event()

    @property
    def waiting(self) -> bool:
        return self._question is not None

    def put(self, question: Question) -> None:
        self._question = question
        self._there.set()

    async def get(self) -> Question:
        while self._question is None:
            self._there.clear()
            await self._there.wait()
        question, self._question = self._question, None
        return question


@contextlib.contextmanager
def viewing(studio: Studio, config: ViewerConfig | None = None) -> Iterator[ViewerServer]:
    """A viewer in a thread; closed at the end. `port=0` in the config takes a free port."""
    with in_thread(lambda: ViewerServer(studio, config)) as server:
        yield server
