"""From a request to an answer or to what its client is told instead, whatever protocol brought it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from wam.contracts import Observation, WamError
from wam.control.server.batcher import Answer, Batcher
from wam.control.server.metrics import Metrics

T = TypeVar("T")
LOG = logging.getLogger("wam.serve")
GENERIC = "internal error; the server's log says more"


class VanishedError(Exception):
    """The client left before its answer."""


class ToldError(Exception):
    """What a client is told in place of an answer."""


class Slots:
    """Slots of a policy by the names of sessions; the eldest session gives way to one too many."""

    def __init__(self, batcher: Batcher, most: int) -> None:
        self.batcher, self.most = batcher, most
        self._held: dict[str, int] = {}

    async def of(self, session: str) -> int:
        if session not in self._held:
            if len(self._held) >= self.most:
                await self.batcher.close_slot(self._held.pop(next(iter(self._held))))
            self._held[session] = self.batcher.open_slot()
        self._held[session] = self._held.pop(session)  # youngest
        return self._held[session]

    async def close(self) -> None:
        while self._held:
            await self.batcher.close_slot(self._held.popitem()[1])


class Desk:
    """Reads requests in threads of its own, asks the policy, and words errors: the client's own in full, the server's only
    for debugging. Raises ToldError with these words, VanishedError if the client is gone."""

    def __init__(self, batcher: Batcher, metrics: Metrics, *, debug: bool) -> None:
        self.batcher, self.metrics, self.debug = batcher, metrics, debug
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="reader")

    def close(self) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def read(self, reading: Callable[[], T]) -> T:
        """What a request says. A WamError is the client's fault."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, reading)
        except WamError as error:
            self.metrics.outcome("refused")
            raise ToldError(str(error)) from error
        except Exception as error:
            raise self._failed() from error

    async def act(self, slot: int, observation: Observation, *, gone: asyncio.Future[None] | None = None) -> Answer:
        """The policy's answer; not waited for once the client is gone."""
        asking = asyncio.ensure_future(self.batcher.act(slot, observation))
        if gone is not None:
            either: set[asyncio.Future[Any]] = {gone, asking}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                asking.cancel()
                raise VanishedError
        return await self._ours(asking)

    async def forget(self, slot: int) -> None:
        await self._ours(self.batcher.forget(slot))

    async def _ours(self, awaited: Awaitable[T]) -> T:
        try:
            return await awaited
        except Exception as error:
            raise self._failed() from error

    def _failed(self) -> ToldError:
        """The words for the exception that is being handled, which the log gets in full."""
        self.metrics.outcome("failed")
        LOG.exception("a request failed")
        return ToldError(traceback.format_exc() if self.debug else GENERIC)
