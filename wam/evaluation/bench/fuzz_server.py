"""Thousands of requests that no honest client would send, and whether the server still answers one that is."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from wam.contracts import Observation, WamError
from wam.control.client import Client
from wam.control.codec import pack
from wam.control.server.config import PolicyOptions, ServeConfig
from wam.control.server.desk import GENERIC
from wam.control.server.running import served_apart
from wam.evaluation.bench.sampling import make_model
from wam.evaluation.bench.server import an_observation, checkpoint_of
from wam.evaluation.bench.timing import BenchResult, Target
from wam.model.config import ModelConfig
from wam.progress import Progress

Frame = bytes | str
Fuzz = Callable[[np.random.Generator, dict[str, Any]], Frame]
FRAME_MIB = 1.0
ANSWER_S = 30.0


def bench_fuzz_server(
    *, config: ModelConfig | None = None, frames: int = 10_000, every: int = 50, seed: int = 0
) -> BenchResult:
    """crashes: how often a served model (small, with random weights) ended or left an honest client without its answer, which
    asks after `every` fuzzed frames. internal_errors: replies that blame the server, which its checks should have spared it."""
    model = make_model(config or _small(), torch.device("cpu"))
    settings = ServeConfig(port=0, frame_mib=FRAME_MIB, policy=PolicyOptions(steps=1, threads=1))
    seen, rng = an_observation(model.config), np.random.default_rng(seed)
    tally = Tally()
    crashes, exits = 0, []
    with checkpoint_of(model) as folder, Progress("fuzz", frames) as progress:
        while tally.sent < frames:
            with served_apart(folder, settings) as (address, process):
                alive = fuzz(address, seen, rng, tally, until=frames, every=every, told=progress.update)
            exits.append(process.exitcode)
            crashes += not (alive and exits[-1] == 0)  # told to stop, it ends by itself
    return BenchResult(
        name="fuzz-server",
        figures={"crashes": crashes, "internal_errors": tally.outcomes["internal error"]},
        detail={"outcomes": dict(tally.outcomes), "kinds": dict(tally.kinds), "exit_codes": exits},
        n=tally.sent,
        targets={"crashes": Target(value=0, at_least=False)},
        seeds=(seed,),
    )


@dataclass
class Tally:
    """What was sent so far, by kind, and what became of it."""

    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        return self.kinds.total()


def _small() -> ModelConfig:
    config = ModelConfig(width=32, depth=1, heads=2, head_dim=16, image_size=16)
    for stream in config.streams.values():
        stream.grid, stream.stem_width = 4, 8
    return config


def fuzz(
    address: str,
    seen: Observation,
    rng: np.random.Generator,
    tally: Tally,
    *,
    until: int,
    every: int,
    told: Callable[[int], None] = lambda sent: None,
) -> bool:
    """Send fuzzed frames until so many were sent in all. Whether, after every few and at the end, an honest client that was
    there before and one that comes anew were answered; stops where they were not."""
    names, bad = list(FUZZES), None
    try:
        with Client(address, answer_s=ANSWER_S) as honest:
            request, actions = honest.request(seen), honest.plan(seen)
            while tally.sent < until:
                for _ in range(min(every, until - tally.sent)):
                    name = names[int(rng.integers(len(names)))]
                    tally.kinds[name] += 1
                    if name in RUDE:
                        RUDE[name](address, rng, pack(request))
                        outcome = "left"
                    else:
                        bad, outcome = _send(address, bad, FUZZES[name](rng, dict(request)))
                    tally.outcomes[outcome] += 1
                    told(tally.sent)
                with Client(address, answer_s=ANSWER_S) as newcomer:
                    if not all(np.array_equal(client.plan(seen), actions) for client in (honest, newcomer)):
                        return False
    except (WamError, OSError, WebSocketException):
        return False
    finally:
        if bad is not None:
            bad.close()
    return True


def _send(address: str, bad: ClientConnection | None, frame: Frame) -> tuple[ClientConnection | None, str]:
    """What became of a frame: answered, refused, internal error, closed or silence; and the connection, if it is still good."""
    try:
        if bad is None:
            bad = connect(address, compression=None, max_size=None)
            bad.recv(timeout=ANSWER_S)
        bad.send(frame)
        reply = bad.recv(timeout=ANSWER_S)
    except (WebSocketException, OSError) as error:
        if bad is not None:
            bad.close()
        return None, "silence" if isinstance(error, TimeoutError) else "closed"
    if isinstance(reply, bytes):
        return bad, "answered"
    bad.close()
    return None, "internal error" if GENERIC in reply else "refused"


# ---------------------------------------------------------------- frames


def _some_key(rng: np.random.Generator, request: dict[str, Any]) -> str:
    return list(request)[int(rng.integers(len(request)))]


def _truncated(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    frame = pack(request)
    return frame[: int(rng.integers(len(frame)))]


def _flipped(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    """A few bytes changed, most of them among those that say what follows."""
    frame = bytearray(pack({key: value for key, value in reversed(request.items())}))
    reach = min(len(frame), int(rng.choice([64, 256, len(frame)])))
    for place in rng.integers(reach, size=int(rng.integers(1, 8))):
        frame[place] = int(rng.integers(256))
    return bytes(frame)


def _noise(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    return rng.bytes(int(rng.integers(2000)))


def _oversize(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    return bytes(int(FRAME_MIB * 2**20) + int(rng.integers(1, 2000)))


def _announced(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    """A header of more than follows."""
    head = [b"\xc6", b"\xdb", b"\xdd", b"\xdf", b"\xc9"][int(rng.integers(5))]
    return head + int(rng.integers(2**32)).to_bytes(4, "big") + rng.bytes(int(rng.integers(64)))


def _nested(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    link = [b"\x91", b"\x81\xa1a", b"\xdd\x00\x00\x00\x01"][int(rng.integers(3))]
    return link * int(rng.integers(9, 20_000)) + b"\xc0"


def _crowded(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    count = int(rng.integers(4097, 200_000))
    return b"\xdd" + count.to_bytes(4, "big") + [b"\x90", b"\x80", b"\xc0"][int(rng.integers(3))] * count


def _typed(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    """An array of another type than its bytes: objects, structures, complex numbers, nonsense."""
    dtypes = [
        "|O",
        "|O8",
        "|V4",
        "<c8",
        "<U4",
        "|S1",
        "<M8[s]",
        "(2,2)f4",
        "f4,f4",
        "{'names':['a']}",
        "",
        "<f4" * 1000,
    ]
    frame = pack(request)
    wrong = dtypes[int(rng.integers(len(dtypes)))].encode()
    size = len(wrong)
    prefix = bytes([0xA0 | size]) if size < 32 else b"\xda" + size.to_bytes(2, "big")
    old = [b"\xa3|u1", b"\xa3<f4"][int(rng.integers(2))]
    return frame.replace(old, prefix + wrong)


def _shaped(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    """A shape that is not that of its bytes, by msgpack's own writer, since `pack` writes none such."""
    import msgpack

    shapes: list[Any] = [
        [-1],
        [2**62, 2**62],
        [0, 2**40],
        [],
        [1.5],
        "3",
        None,
        [[1]],
        [True],
        [7] * 40,
        [2**70 % 2**64],
    ]
    array = {
        b"__ndarray__": True,
        b"data": bytes(12),
        b"dtype": "<f4",
        b"shape": shapes[int(rng.integers(len(shapes)))],
    }
    return msgpack.packb({"prompt": "x", _some_key(rng, request): array})


def _missing(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    request.pop(_some_key(rng, request))
    return pack(request)


def _misnamed(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    key = _some_key(rng, request)
    request[key[:-1] + "?"] = request.pop(key)
    return pack(request)


def _mistaken(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    """A right key with a wrong value."""
    wrong: list[Any] = [
        None, True, -1, 2**63, 1e308, "", "x" * 3000, b"\x00", [], {}, [[1, 2], [3]], ["a"], {"a": [1]}, float("nan"),
        np.zeros(0), np.zeros((0, 0, 3), np.uint8), np.zeros((3, 3), np.uint8), np.zeros((9, 9, 4), np.uint8),
        np.zeros((1, 1, 3), np.uint8), np.zeros((8, 8, 3), np.float64), np.full(4, np.nan), np.full(4, np.inf, np.float16),
        np.full(400, 1e300), np.zeros((2, 2, 2, 2, 2, 2, 2, 2)), np.zeros((3, 1, 1), np.uint8), np.zeros(4, np.bool_),
    ]  # fmt: skip
    return pack({**request, _some_key(rng, request): wrong[int(rng.integers(len(wrong)))]})


def _no_dictionary(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    values: list[Any] = [None, 1, "observation", [request], np.zeros(3), [["prompt", "x"]]]
    return pack(values[int(rng.integers(len(values)))])


def _odd_keys(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    import msgpack

    keys = [1, None, b"prompt", True, 1.5, b"__npgeneric__", b"__ndarray__"]
    return msgpack.packb({keys[int(rng.integers(len(keys)))]: "x", "reset": [[], 1, "yes"][int(rng.integers(3))]})


def _text(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    return "".join(chr(int(c)) for c in rng.integers(1, 0xD7FF, size=int(rng.integers(200))))


def _honest(rng: np.random.Generator, request: dict[str, Any]) -> Frame:
    return pack(request)


# ---------------------------------------------------------------- manners


def _dial(address: str) -> socket.socket:
    where = urlsplit(address)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=ANSWER_S)


def _vanish(address: str, rng: np.random.Generator, frame: bytes) -> None:
    """Ask and leave without a word, in the middle of the inference or of the request."""
    bad = connect(address, compression=None, max_size=None)
    if rng.integers(2):
        bad.send(frame)
    else:
        bad.socket.sendall(bytes([0x82, 0xFF]) + len(frame).to_bytes(8, "big") + bytes(4) + frame[: len(frame) // 2])
    bad.socket.close()


def _broken_websocket(address: str, rng: np.random.Generator, frame: bytes) -> None:
    bad = connect(address, compression=None, max_size=None)
    with contextlib.suppress(OSError):
        bad.socket.sendall(rng.bytes(int(rng.integers(1, 200))))
    bad.socket.close()


def _no_websocket(address: str, rng: np.random.Generator, frame: bytes) -> None:
    lines = [
        b"GET / HTTP/1.1",
        b"POST /infer HTTP/1.1",
        b"GET " + b"/" * 9000 + b" HTTP/1.1",
        b"\x16\x03\x01",
        rng.bytes(50),
    ]
    with contextlib.suppress(OSError), _dial(address) as bad:
        bad.sendall(lines[int(rng.integers(len(lines)))] + b"\r\nHost: x\r\n" + rng.bytes(20) + b"\r\n\r\n")
        bad.recv(100)


RUDE: dict[str, Callable[[str, np.random.Generator, bytes], None]] = {
    "vanishing": _vanish,
    "broken websocket": _broken_websocket,
    "no websocket": _no_websocket,
}
FUZZES: dict[str, Fuzz] = {
    "honest": _honest,
    "truncated": _truncated,
    "flipped bytes": _flipped,
    "noise": _noise,
    "oversize": _oversize,
    "announces more": _announced,
    "nested": _nested,
    "crowded": _crowded,
    "dtype": _typed,
    "shape": _shaped,
    "missing key": _missing,
    "wrong key": _misnamed,
    "wrong value": _mistaken,
    "no dictionary": _no_dictionary,
    "odd keys": _odd_keys,
    "text": _text,
    **dict.fromkeys(RUDE, _honest),
}
