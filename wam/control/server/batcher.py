"""Requests of many sessions in one call of the policy, in a thread of its own, first come first served.

While the policy computes, requests gather; the next call answers all of them, up to the batch's size. So one client waits for
nobody, many share a call, and none is passed by. The policy is touched by that one thread only: acting, forgetting and
imagining take turns there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from wam.contracts import Observation, expected
from wam.control.policy import Foreseeing, Policy
from wam.control.server.metrics import Metrics

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """actions (K, A) float32. infer_ms: of the policy's call; queue_ms: of waiting for it; batch: observations it answered."""

    actions: np.ndarray
    infer_ms: float
    queue_ms: float
    batch: int


@dataclass(frozen=True, kw_only=True)
class _Request:
    slot: int
    observation: Observation
    answer: asyncio.Future[Answer]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """`async with Batcher(policy, ...) as batcher: await batcher.act(slot, observation)`.

    size: observations in a call at most. gather_s: how long the first request waits while other open slots have asked for
    nothing; with one slot open it does not wait.
    """

    def __init__(
        self, policy: Policy, *, size: int = 16, gather_s: float = 0.0, metrics: Metrics | None = None
    ) -> None:
        self.policy, self.size, self.gather_s = policy, size, gather_s
        self.metrics = metrics or Metrics()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        self._free: list[int] = []
        self._open: set[int] = set()
        self._since: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher:
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        while not self._waiting.empty():
            self._waiting.get_nowait().answer.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # slots ------------------------------------------------------------------------------------------------------

    def open_slot(self) -> int:
        """A slot of the policy that nobody uses."""
        slot = self._free.pop() if self._free else len(self._open)
        self._open.add(slot)
        return slot

    async def close_slot(self, slot: int) -> None:
        """Forget what the slot was shown, then let others have it."""
        try:
            await self.forget(slot)
        finally:
            self._open.discard(slot)
            self._free.append(slot)

    async def forget(self, slot: int) -> None:
        """A new episode begins in the slot."""
        await self._in_thread(lambda: self.policy.reset(slot))

    # asking -----------------------------------------------------------------------------------------------------

    async def act(self, slot: int, observation: Observation) -> Answer:
        """The chunk from this observation on. A caller that is cancelled before its turn costs nothing."""
        request = _Request(slot=slot, observation=observation, answer=asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(request)
        return await request.answer

    async def foresee(self, slot: int, observation: Observation, actions: np.ndarray) -> np.ndarray | None:
        """What the policy expects (V, T, H, W, 3) uint8; None if it does not imagine, or if somebody waits for an answer."""
        policy = self.policy
        if not isinstance(policy, Foreseeing) or self._since is not None or not self._waiting.empty():
            return None
        return await self._in_thread(lambda: policy.foresee(observation, actions, slot=slot))

    async def warm_up(self, example: Observation) -> float:
        """Seconds that the policy's first calls took, of one observation and of a full batch, which are then forgotten."""
        begun = time.perf_counter()
        for count in sorted({1, self.size}):
            await self._in_thread(lambda count=count: self._infer([example] * count, range(count)))  # type: ignore[misc]
        await self._in_thread(self.policy.reset)
        return time.perf_counter() - begun

    def busy_s(self) -> float:
        """For how long the policy's present call has been running."""
        return 0.0 if self._since is None else time.perf_counter() - self._since

    # answering --------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            await self._gather(batch)
            batch = [request for request in batch if not request.answer.done()]
            if batch:
                await self._answer(batch)

    async def _gather(self, batch: list[_Request]) -> None:
        """Add whoever else waits, and for a moment those who are about to."""
        size = min(self.size, len(self._open))
        until = batch[0].since + self.gather_s
        while len(batch) < self.size:
            if not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
                continue
            left = until - time.perf_counter()
            if len(batch) >= size or left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                batch.append(await asyncio.wait_for(self._waiting.get(), left))

    async def _answer(self, batch: list[_Request]) -> None:
        self._since = time.perf_counter()
        try:
            observations, slots = [request.observation for request in batch], [request.slot for request in batch]
            actions, begun, spent = await self._in_thread(lambda: self._infer(observations, slots))
        except Exception as error:
            for request in batch:
                if not request.answer.done():
                    request.answer.set_exception(error)
            return
        finally:
            self._since = None
        self.metrics.called(len(batch), spent)
        for request, chunk in zip(batch, actions, strict=True):
            waited = begun - request.since
            self.metrics.queue_seconds.observe(waited)
            if request.answer.done():
                continue
            if np.isfinite(chunk).all():
                answer = Answer(actions=chunk, infer_ms=1e3 * spent, queue_ms=1e3 * waited, batch=len(batch))
                request.answer.set_result(answer)
            else:
                request.answer.set_exception(
                    expected("finite actions from the policy", got="NaN or infinity", do="use an earlier checkpoint")
                )

    def _infer(self, observations: Sequence[Observation], slots: Sequence[int]) -> tuple[np.ndarray, float, float]:
        """(B, K, A) float32, when the call began and how long it took."""
        begun = time.perf_counter()
        actions = np.asarray(self.policy.act(observations, slots), np.float32)
        if actions.ndim != 3 or actions.shape[:2] != (len(observations), self.policy.chunk):
            raise expected(
                f"actions of shape (B, K, A) with B = {len(observations)} and K = {self.policy.chunk}",
                got=actions.shape,
                do="check the policy",
            )
        return actions, begun, time.perf_counter() - begun

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
