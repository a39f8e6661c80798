"""The robot's side of a policy server: one session by websocket, and a `Policy` whose network is elsewhere.

Needs numpy, msgpack and websockets; no torch.

    with Client("ws://127.0.0.1:8000") as client:
        chunk = client.plan(observation)           # (K, A) in the units of client.action_space
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect

from wam.contracts import ActionSpace, Observation, WamError, expected
from wam.control.codec import MIB, Limits, pack, unpack

RESET = "reset"
"""A request with this key set begins a new episode: the server forgets what it was shown before."""


class Client:
    """One session with a server that speaks openpi's protocol: this project's, or openpi's own.

    address: ws://host:port or, with TLS, wss://host:port. token: what the server asks for. tls: to trust a certificate of
    one's own. wait_s: how long to go on knocking at a server that has not come up yet. answer_s: how long an answer may take.
    `metadata` is what the server says of itself.
    """

    def __init__(
        self,
        address: str = "ws://127.0.0.1:8000",
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        wait_s: float = 0.0,
        answer_s: float = 60.0,
    ) -> None:
        self.address, self.answer_s = address, answer_s
        self._limits = Limits(frame_bytes=64 * MIB, values=65536)
        self._begins = False
        options: dict[str, Any] = {} if tls is None else {"ssl": tls}
        if token:
            options["additional_headers"] = {"Authorization": f"Api-Key {token}"}
        self._socket = self._connect(options, time.monotonic() + wait_s)
        metadata = self._receive()
        if not isinstance(metadata, dict):
            raise expected("a server that describes itself first", got=type(metadata).__name__, do="check the address")
        self.metadata: dict[str, Any] = metadata

    def _connect(self, options: Mapping[str, Any], until: float) -> Any:
        while True:
            try:
                return connect(self.address, compression=None, max_size=self._limits.frame_bytes, **options)
            except InvalidStatus as error:
                why = error.response.body or b""
                raise expected(
                    f"{self.address} to let this client in",
                    got=f"{error.response.status_code} {why.decode(errors='replace').strip()[:200]}",
                    do="check the token and the server's limits",
                ) from error
            except (OSError, WebSocketException) as error:
                if time.monotonic() >= until:
                    raise expected(
                        f"a policy server at {self.address}",
                        got=str(error) or type(error).__name__,
                        do="start it first",
                    ) from error
                time.sleep(0.2)

    @property
    def action_space(self) -> ActionSpace | None:
        """What the numbers of an action mean, where the server says so."""
        space = self.metadata.get("action_space")
        return ActionSpace.from_dict(space) if isinstance(space, Mapping) else None

    def infer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The server's whole reply to a request with the keys that it wants (`metadata["keys"]`): `actions` (K, A) and
        timings in milliseconds. Raises WamError with the server's words if it refuses."""
        self.send(request)
        return self.receive()

    def plan(self, observation: Observation) -> np.ndarray:
        """(K, A) actions from an observation, whose parts are sent under the keys that the server wants."""
        return self.infer(self.request(observation))["actions"]

    def request(self, observation: Observation) -> dict[str, Any]:
        """The observation under the server's keys. Raises WamError if a camera or the state is missing."""
        keys = self.metadata.get("keys")
        if not isinstance(keys, Mapping):
            raise expected(
                "a server that names its keys", got="none", do="use `infer` with the keys it is known to want"
            )
        if missing := [name for name in keys["images"] if name not in observation.images]:
            raise expected(
                f"images of {', '.join(keys['images'])}",
                got=", ".join(observation.images) or "none",
                do=f"add {', '.join(missing)}",
            )
        found: dict[str, Any] = {key: observation.images[name] for name, key in keys["images"].items()}
        if len(keys["state"]) > 1:
            raise expected("a server with one key for the state", got=keys["state"], do="use `infer` with each part")
        if keys["state"]:
            if observation.state is None:
                raise expected("an observation with a state", got="none", do="add the robot's readings")
            found[keys["state"][0]] = observation.state
        return found | {keys["prompt"]: observation.instruction}

    def reset(self) -> None:
        """The next request begins a new episode."""
        self._begins = True

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request; several clients may send before the first of them receives, and be answered together."""
        frame = pack({**request, RESET: True} if self._begins else dict(request))
        self._begins = False
        try:
            self._socket.send(frame)
        except (ConnectionClosed, OSError) as error:
            raise self._gone(error) from error

    def receive(self) -> dict[str, Any]:
        reply = self._receive()
        if not isinstance(reply, dict) or not isinstance(reply.get("actions"), np.ndarray):
            raise expected("a reply with actions", got=str(reply)[:200], do="check that it is a policy server")
        return reply

    def _receive(self) -> Any:
        try:
            frame = self._socket.recv(timeout=self.answer_s)
        except TimeoutError as error:
            self.close()  # an answer that comes late must not be taken for the next one
            raise expected(
                f"an answer within {self.answer_s:g} s", got="none", do="allow more, or look at the server"
            ) from error
        except (ConnectionClosed, OSError) as error:
            raise self._gone(error) from error
        if isinstance(frame, str):
            raise WamError(f"the server refused: {frame}")
        return unpack(frame, self._limits)

    def _gone(self, error: Exception) -> WamError:
        return expected(f"{self.address} to stay connected", got=str(error) or type(error).__name__, do="connect again")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RemotePolicy:
    """A `Policy` whose network runs in a server: each slot is a session there, and the sessions are answered in batches.

    options: those of `Client`.
    """

    def __init__(self, address: str = "ws://127.0.0.1:8000", **options: Any) -> None:
        self._address, self._options = address, options
        self._clients = {0: Client(address, **options)}
        self.metadata = self._clients[0].metadata
        self.chunk = int(self.metadata["action_chunk_size"])

    def reset(self, index: int | None = None) -> None:
        """The next observation of slot `index`, or of every slot, begins a new episode."""
        for slot, client in self._clients.items():
            if index in (None, slot):
                client.reset()

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        """(B, K, A) as the server answers. After an error every session is a new one."""
        try:
            sessions = [self._session(slot) for slot in (range(len(observations)) if slots is None else slots)]
            for client, observation in zip(sessions, observations, strict=True):
                client.send(client.request(observation))
            return np.stack([client.receive()["actions"] for client in sessions])
        except WamError:
            self.close()  # else the answers still on their way would be taken for the next ones
            raise

    def _session(self, slot: int) -> Client:
        if slot not in self._clients:
            self._clients[slot] = Client(self._address, **self._options)
        return self._clients[slot]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
