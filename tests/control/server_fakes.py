"""Policies without a network, and a server of them, for tests of what stands between a client and a policy."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection, connect

from wam.contracts import ActionSpace, Observation
from wam.control.server.config import ServeConfig
from wam.control.server.running import serving
from wam.control.server.served import Served
from wam.control.server.server import PolicyServer

SIZE, STATE, CHUNK, ACTIONS = 8, 3, 5, 2
SPACE = ActionSpace(names=("x", "y"), units=("m", "m"), low=(-1.0, -1.0), high=(1.0, 1.0), kind="absolute", rate_hz=20)


class Recalling:
    """Every action is (the state's first number, how many observations the slot has been shown)."""

    chunk = CHUNK

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.shown: dict[int, int] = {}
        self.calls: list[list[float]] = []
        self.threads: set[str] = set()
        self.told: list[str] = []

    def reset(self, index: int | None = None) -> None:
        self.threads.add(threading.current_thread().name)
        if index is None:
            self.shown.clear()
        else:
            self.shown.pop(index, None)

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        self.calls.append([float(seen.state[0]) for seen in observations])  # type: ignore[index]
        found = np.zeros((len(observations), CHUNK, ACTIONS))
        for row, (slot, seen) in enumerate(zip(slots or range(len(observations)), observations, strict=True)):
            self.shown[slot] = self.shown.get(slot, 0) + 1
            self.told.append(seen.instruction)
            found[row] = (seen.state[0], self.shown[slot])  # type: ignore[index]
        return found


class Gated(Recalling):
    """Computes only while its gate is open; `computing` is set while it waits there."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.computing = threading.Event(), threading.Event()
        self.gate.set()

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        self.computing.set()
        assert self.gate.wait(120)
        self.computing.clear()
        return super().act(observations, slots)

    def hold(self) -> None:
        """From the next call on."""
        self.gate.clear()
        self.computing.clear()


def served(policy: Any = None, **changes: Any) -> Served:
    told: dict[str, Any] = {
        "policy": policy or Recalling(),
        "cameras": ("front", "wrist"),
        "image_size": SIZE,
        "state_dim": STATE,
        "action_dim": ACTIONS,
        "action_space": SPACE,
        "name": "fake",
        "sha256": "0123456789abcdef",
    }
    return Served(**{**told, **changes})


def observation(value: float = 0.0, *, instruction: str = "push") -> Observation:
    picture = np.full((SIZE, SIZE, 3), 100, np.uint8)
    return Observation(
        images={"front": picture, "wrist": picture // 2},
        state=np.array([value, 0, 0], np.float32),
        instruction=instruction,
    )


def request(value: float = 0.0, **changes: Any) -> dict[str, Any]:
    """What openpi's client would send; None takes a key away."""
    seen = observation(value)
    told = {
        "observation/front": seen.images["front"],
        "observation/wrist": seen.images["wrist"],
        "observation/state": seen.state,
        "prompt": seen.instruction,
    }
    return {key: value for key, value in {**told, **changes}.items() if value is not None}


@contextlib.contextmanager
def running(policy: Any = None, *, told: Served | None = None, **settings: Any) -> Iterator[PolicyServer]:
    """A server in a thread, on a free port."""
    with serving(told or served(policy), ServeConfig(port=0, **settings)) as server:
        yield server


def get(server: PolicyServer, path: str, **headers: str) -> tuple[int, str]:
    """(status, body) of a plain request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def counted(server: PolicyServer, line: str) -> float:
    """What a line of the metrics says; 0 where there is none."""
    found = [text for text in get(server, "/metrics")[1].splitlines() if text.startswith(line + " ")]
    return float(found[0].split()[-1]) if found else 0.0


def until(holds: Callable[[], bool], *, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def raw(server: PolicyServer, **options: Any) -> ClientConnection:
    """A websocket whose greeting was read."""
    opened = connect(server.address, compression=None, max_size=None, **options)
    opened.recv()
    return opened
