"""GR00T's protocol: a request in msgpack over ZMQ, one reply to each. Its own server answers one client at a time, unpacks
whatever comes and lets anyone stop it (`kill`); here requests share calls with all others, arrays are read by their header
alone, and `kill` is not offered.

    request   {"endpoint": ping | get_action | reset | get_modality_config, "data": {...}, "api_token": token}
    data      {"observation": {"video": {camera: (B, T, H, W, 3)}, "state": {name: (B, T, S)}, "language": {"task": [[text]]}}}
    reply     [{name: (B, K, A) float32}, {}], or {"error": text}

An array is {"__ndarray_class__": True, "as_npy": a .npy file's bytes}.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from hmac import compare_digest
from typing import Any

import msgpack
import numpy as np
import zmq
import zmq.asyncio
from numpy.lib import format as npy

from wam.contracts import Observation, WamError, expected
from wam.control.codec import Limits, array_of, walk
from wam.control.server.config import ServeConfig
from wam.control.server.desk import LOG, Desk, Slots, ToldError
from wam.control.server.keys import KeyMap
from wam.control.server.live import Live
from wam.control.server.served import Served

ARRAY, FILE = "__ndarray_class__", "as_npy"
ENDPOINTS = ("get_action", "reset", "ping", "get_modality_config")


class Gr00t:
    """`async with Gr00t(...)`: answers at `port` until it is left. A socket's identity is a session of `config.batch` rows at
    most; the eldest gives way to one too many, since sockets do not say when they leave."""

    def __init__(
        self, config: ServeConfig, served: Served, keys: KeyMap, desk: Desk, live: Live, *, token: str | None
    ) -> None:
        self.config, self.served, self.keys, self.desk, self.live = config, served, keys, desk, live
        self.token = None if token is None else token.encode()
        self.limits = Limits(frame_bytes=config.frame_bytes)
        self.groups = dict(config.gr00t.actions) or {"action": [0, served.action_dim]}
        for name, ends in self.groups.items():
            if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= served.action_dim:
                raise expected(
                    f"gr00t.actions.{name} as [first, last + 1] of {served.action_dim} actions",
                    got=ends,
                    do="correct it",
                )
        self.port = 0
        self._sessions: OrderedDict[bytes, tuple[int, Slots]] = OrderedDict()
        self._numbers = itertools.count(-1, -1)  # apart from those of websockets
        self._answering: dict[bytes, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Gr00t:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.setsockopt(zmq.MAXMSGSIZE, self.config.frame_bytes)
        self._socket.setsockopt(zmq.RCVHWM, 2)
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        self._socket.setsockopt(zmq.IPV6, ":" in self.config.host)
        try:
            self._socket.bind(f"tcp://{host}:{self.config.gr00t.port or '*'}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise expected(f"to listen on {host}:{self.config.gr00t.port}", got=error, do="set gr00t.port") from error
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self._task = asyncio.create_task(self._receive())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Answer what was asked, then close."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._answering:
            await asyncio.wait(self._answering.values(), timeout=self.config.drain_s)
        self._context.destroy(linger=1000)

    async def _receive(self) -> None:
        while True:
            identity, *frames = await self._socket.recv_multipart()
            if len(frames) != 2 or identity in self._answering or len(self._answering) >= self.config.sessions:
                self.desk.metrics.outcome("refused")  # not as REQ sockets speak, or more than may ask at once
                continue
            task = asyncio.create_task(self._answer(identity, frames[1]))
            self._answering[identity] = task
            task.add_done_callback(partial(self._answered, identity))

    def _answered(self, identity: bytes, task: object) -> None:
        self._answering.pop(identity)

    async def _answer(self, identity: bytes, frame: bytes) -> None:
        try:
            try:
                reply = await self._reply(identity, frame)
            except ToldError as told:
                reply = {"error": str(told)}
            async with asyncio.timeout(self.config.send_s):
                await self._socket.send_multipart([identity, b"", msgpack.packb(reply, default=_described)])
        except Exception:
            LOG.exception("an answer could not be sent")

    async def _reply(self, identity: bytes, frame: bytes) -> Any:
        request = await self.desk.read(lambda: self._read(frame))
        endpoint = request.get("endpoint", "get_action")
        if endpoint == "ping":
            return {"status": "ok", "message": "the server is running"}
        if endpoint == "get_modality_config":
            return self.modalities()
        number, slots = await self._session(identity)
        if endpoint == "reset":
            await slots.close()
            return {}
        begun = time.perf_counter()
        rows = await self.desk.read(lambda: self._rows(request))
        asked = [(await slots.of(str(row)), seen) for row, seen in enumerate(rows)]
        answers = await asyncio.gather(*(self.desk.act(slot, seen) for slot, seen in asked))
        spent = time.perf_counter() - begun
        self.desk.metrics.outcome("answered")
        self.desk.metrics.request_seconds.observe(spent)
        self.live.note(number, *asked[0], answers[0], 1e3 * spent)
        actions = np.stack([answer.actions for answer in answers])
        return [{name: actions[..., first:last] for name, (first, last) in self.groups.items()}, {}]

    async def _session(self, identity: bytes) -> tuple[int, Slots]:
        if identity not in self._sessions:
            while len(self._sessions) >= self.config.sessions:
                eldest = next((name for name in self._sessions if name not in self._answering), None)
                if eldest is None:
                    break  # all of them are being answered
                number, slots = self._sessions.pop(eldest)
                self.live.gone(number)
                await slots.close()
            self._sessions[identity] = (next(self._numbers), Slots(self.desk.batcher, self.config.batch))
        self._sessions.move_to_end(identity)
        return self._sessions[identity]

    def modalities(self) -> dict[str, Any]:
        """What GR00T's clients ask for: the names of what is wanted and given, and at which steps."""
        steps = list(range(self.served.policy.chunk))
        names = {
            "video": ([0], [key.removeprefix("video/") for key in self.keys.images.values()]),
            "state": ([0], [key.removeprefix("state/") for key in self.keys.state]),
            "action": (steps, list(self.groups)),
            "language": ([0], [self.keys.prompt.removeprefix("language/")]),
        }
        return {
            kind: {"__ModalityConfig_class__": True, "as_json": {"delta_indices": at, "modality_keys": keys}}
            for kind, (at, keys) in names.items()
        }

    # requests, read in a thread ---------------------------------------------------------------------------------

    def _read(self, frame: bytes) -> Mapping[Any, Any]:
        walk(memoryview(frame), self.limits)
        try:
            request = msgpack.unpackb(frame, object_hook=self._array)
        except WamError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            raise expected("a request as GR00T's client packs it", got=error, do="use its client") from error
        if not isinstance(request, dict):
            raise expected("a dictionary with an endpoint", got=type(request).__name__, do="use GR00T's client")
        if self.token is not None:
            given = request.get("api_token")
            if not isinstance(given, str) or not compare_digest(given.encode("utf-8", "replace"), self.token):
                raise expected("the token as api_token", got="none or another", do="give the client its api_token")
        known = ("get_action", "reset", "ping", "get_modality_config")
        if request.get("endpoint", known[0]) not in known:
            raise expected(
                f"an endpoint among {', '.join(known)}", got=str(request["endpoint"])[:80], do="use one of them"
            )
        return request

    def _rows(self, request: Mapping[Any, Any]) -> list[Observation]:
        """One observation for each of B rows."""
        data = request.get("data")
        seen = data.get("observation") if isinstance(data, Mapping) else None
        if not isinstance(seen, Mapping):
            raise expected("data with an observation", got=type(seen).__name__, do="use GR00T's client")
        parts: dict[str, dict[str, list[Any]]] = {}
        for kind in ("video", "state", "language"):
            told = seen.get(kind, {})
            if not isinstance(told, Mapping):
                raise expected(f"a dictionary of {kind}", got=type(told).__name__, do="use GR00T's client")
            parts[kind] = {str(name): _present(f"{kind}/{name}", value) for name, value in told.items()}
        counts = {len(rows) for named in parts.values() for rows in named.values()}
        if len(counts) != 1 or not 1 <= counts.copy().pop() <= self.config.batch:
            raise expected(f"the same 1 to {self.config.batch} rows of everything", got=sorted(counts), do="send fewer")
        return [
            self.keys.observation({kind: {k: rows[row] for k, rows in named.items()} for kind, named in parts.items()})
            for row in range(counts.pop())
        ]

    def _array(self, found: dict[Any, Any]) -> Any:
        """An array of its dictionary, read by its header; any other dictionary as it is."""
        if ARRAY not in found:
            return found
        data = found.get(FILE)
        file = io.BytesIO(data if isinstance(data, bytes) else b"")
        try:
            version = npy.read_magic(file)
            reader = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, fortran, dtype = reader(file)
        except Exception as error:  # whatever numpy's reader of the header makes of what may be anything
            raise expected("arrays as .npy files", got=str(error)[:200], do="use GR00T's client") from error
        return array_of(file.read(), dtype, shape, self.limits, order="F" if fortran else "C")


def _present(key: str, value: Any) -> list[Any]:
    """The last of T steps of each of B rows: of an array (B, T, ...), or of lists of lists of text."""
    rows = list(value) if isinstance(value, np.ndarray) and value.ndim >= 2 else value
    if not isinstance(rows, list) or not all(isinstance(row, list | np.ndarray) and len(row) for row in rows):
        raise expected(f"{key!r} as rows of steps", got=type(value).__name__, do="give it the axes B and T")
    return [row[-1] for row in rows]


def _described(value: Any) -> dict[str, Any]:
    assert isinstance(value, np.ndarray)
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(value), allow_pickle=False)
    return {ARRAY: True, FILE: file.getvalue()}
