"""What the page at `/` shows: the newest observation, chunk, delays and imagined future of each session, as JSON.

Nothing is kept or computed while no page is open. A page that reads slowly skips what it missed.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from websockets.asyncio.server import ServerConnection

from wam.contracts import Observation
from wam.control.server.batcher import Answer, Batcher
from wam.control.server.config import LiveConfig
from wam.control.server.served import Served

SHOWN = 8
"""Sessions on a page, those that asked last."""
DELAYS = 240


@dataclass
class _Seen:
    """A session's newest request and its answer."""

    session: int
    slot: int
    observation: Observation
    answer: Answer
    when: float
    asked: int = 1
    delays: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=DELAYS))  # total, inference: ms
    future: dict[str, list[str]] = field(default_factory=dict)


class Live:
    """Takes notes while a page is open, and says them as often as set."""

    def __init__(self, served: Served, batcher: Batcher, config: LiveConfig) -> None:
        self.served, self.batcher, self.config = served, batcher, config
        self.viewers = 0
        self._seen: dict[int, _Seen] = {}
        self._said = ""
        self._news = asyncio.Condition()
        self._fresh = False
        self._imagined = 0.0
        self._task: asyncio.Task[None] | None = None

    # notes ------------------------------------------------------------------------------------------------------

    def note(self, session: int, slot: int, observation: Observation, answer: Answer, total_ms: float) -> None:
        """A session was answered."""
        if not self.viewers:
            return
        now = time.monotonic()
        before = self._seen.pop(session, None)
        seen = _Seen(session=session, slot=slot, observation=observation, answer=answer, when=now)
        if before is not None:
            seen.asked, seen.delays, seen.future = before.asked + 1, before.delays, before.future
        seen.delays.append((total_ms, answer.infer_ms))
        self._seen[session] = seen  # last in order
        self._fresh = True

    def gone(self, session: int) -> None:
        """A session ended."""
        self._fresh |= self._seen.pop(session, None) is not None

    # pages ------------------------------------------------------------------------------------------------------

    async def watch(self, socket: ServerConnection) -> None:
        """Tell one page what there is until it closes."""
        self.viewers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._tell())
        telling = asyncio.create_task(self._tell_page(socket))
        gone = asyncio.create_task(socket.wait_closed())
        try:
            await asyncio.wait({telling, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            telling.cancel()
            gone.cancel()
            self.viewers -= 1
            if not self.viewers:
                self._task.cancel()
                self._task = None
                self._seen.clear()
                self._said = ""

    async def _tell_page(self, socket: ServerConnection) -> None:
        await socket.send(json.dumps({"model": self._model()}))
        if self._said:
            await socket.send(self._said)
        while True:
            async with self._news:
                await self._news.wait()  # what is said while the page still reads, it skips
                said = self._said
            await socket.send(said)

    async def _tell(self) -> None:
        """Put together what is new, a few times a second."""
        while True:
            await asyncio.sleep(1 / self.config.hz)
            await self._imagine()
            if not self._fresh:
                continue
            self._fresh = False
            newest = list(self._seen.values())[-SHOWN:]
            said = await asyncio.to_thread(lambda newest=newest: json.dumps({"sessions": [_plain(s) for s in newest]}))  # type: ignore[misc]
            async with self._news:
                self._said = said
                self._news.notify_all()

    async def _imagine(self) -> None:
        """Now and then, what the newest chunk is expected to bring about, if nobody waits for an answer."""
        every, now = self.config.imagine_every_s, time.monotonic()
        if not every or now - self._imagined < every or not self._seen:
            return
        seen = next(reversed(self._seen.values()))
        if now - seen.when > every:
            return
        frames = await self.batcher.foresee(seen.slot, seen.observation, seen.answer.actions)
        if frames is not None:
            self._imagined = time.monotonic()
            seen.future.clear()
            for camera, pictures in zip(self.served.cameras, frames, strict=True):
                seen.future[camera] = [data_url(picture) for picture in pictures]
            self._fresh = True

    def _model(self) -> dict[str, Any]:
        space = self.served.action_space
        return {
            "name": self.served.name,
            "sha256": self.served.sha256[:12],
            "random": self.served.random,
            "chunk": self.served.policy.chunk,
            "actions": list(space.names) if space else [f"action {i}" for i in range(self.served.action_dim)],
            "low": list(space.low) if space else None,
            "high": list(space.high) if space else None,
            "hz": space.rate_hz if space else None,
        }


def _plain(seen: _Seen) -> dict[str, Any]:
    return {
        "session": seen.session,
        "instruction": seen.observation.instruction,
        "cameras": {name: data_url(image) for name, image in seen.observation.images.items()},
        "state": None if seen.observation.state is None else [round(float(v), 4) for v in seen.observation.state],
        "chunk": seen.answer.actions.round(4).tolist(),
        "future": dict(seen.future),
        "asked": seen.asked,
        "batch": seen.answer.batch,
        "queue_ms": round(seen.answer.queue_ms, 2),
        "delays": [[round(total, 2), round(infer, 2)] for total, infer in list(seen.delays)],
    }


def data_url(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 as an address that holds the picture itself."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
