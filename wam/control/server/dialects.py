"""The two protocols of robots' clients over websockets: which metadata greets them, what a request asks, what a reply holds.

openpi: every request is an observation; a connection is a session. This project's client may add `reset`, which begins
an episode. roboarena: a request names its `endpoint`, infer or reset, and may name its session by `session_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import wam
from wam.contracts import Observation, expected
from wam.control.client import RESET
from wam.control.codec import pack
from wam.control.server.batcher import Answer
from wam.control.server.config import RoboarenaConfig, ServeConfig
from wam.control.server.keys import KeyMap
from wam.control.server.served import Served

PROTOCOL = 1


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a request wants. observation: None to forget only. session: among those of its connection. begins: an episode."""

    observation: Observation | None
    session: str = ""
    begins: bool = False


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds from the request's frame to its reply, and of the reply before, if there was one."""

    total_ms: float
    previous_ms: float | None


class Dialect(Protocol):
    """sessions_each: how many sessions a connection may have. forgotten: the text that answers a reset."""

    sessions_each: int
    forgotten: str

    def metadata(self) -> Mapping[str, Any]: ...

    def read(self, request: Any) -> Ask:
        """Raises WamError if the request is not as the model wants it."""

    def reply(self, answer: Answer, timing: Timing) -> bytes: ...


def make_dialect(config: ServeConfig, served: Served, keys: KeyMap) -> Dialect:
    if config.dialect == "roboarena":
        return Roboarena(served, keys, config.roboarena)
    return OpenPi(served, keys, config.state_names)


class OpenPi:
    """openpi's protocol, with metadata that say all a client must know."""

    sessions_each = 1
    forgotten = ""

    def __init__(self, served: Served, keys: KeyMap, state_names: list[str] | None = None) -> None:
        self.served, self.keys, self.state_names = served, keys, list(state_names or [])
        if self.state_names and len(self.state_names) != served.state_dim:
            raise expected(
                f"{served.state_dim} state_names", got=len(self.state_names), do="give one for each number of the state"
            )

    def metadata(self) -> dict[str, Any]:
        served = self.served
        return {
            "protocol_version": PROTOCOL,
            "server": f"wam {wam.__version__}",
            "model": served.name,
            "model_sha256": served.sha256,
            "model_is_random": served.random,
            "action_space": served.action_space.to_dict() if served.action_space else None,
            "action_dim": served.action_dim,
            "action_chunk_size": served.policy.chunk,
            "control_hz": served.action_space.rate_hz if served.action_space else None,
            "cameras": list(served.cameras),
            "image_resolution": [served.image_size, served.image_size],
            "state": {"dim": served.state_dim if self.keys.state else 0, "names": self.state_names},
            "keys": {"images": dict(self.keys.images), "state": list(self.keys.state), "prompt": self.keys.prompt},
            "needs_session_id": False,
        }

    def read(self, request: Any) -> Ask:
        told = _dictionary(request)
        return Ask(observation=self.keys.observation(told), begins=told.get(RESET) is True)

    def reply(self, answer: Answer, timing: Timing) -> bytes:
        server: dict[str, Any] = {
            "infer_ms": timing.total_ms,
            "queue_ms": answer.queue_ms,
            "batch_size": answer.batch,
        }
        if timing.previous_ms is not None:
            server["prev_total_ms"] = timing.previous_ms
        return pack(
            {"actions": answer.actions, "policy_timing": {"infer_ms": answer.infer_ms}, "server_timing": server}
        )


class Roboarena:
    """roboarena's protocol, DreamZero's too. The metadata hold its own keys and no others, since its client takes no others."""

    forgotten = "reset successful"

    def __init__(self, served: Served, keys: KeyMap, config: RoboarenaConfig) -> None:
        self.served, self.keys, self.config = served, keys, config
        self.sessions_each = config.sessions_each

    def metadata(self) -> dict[str, Any]:
        pictures = set(self.keys.images.values())
        return {
            "image_resolution": [self.served.image_size, self.served.image_size],
            "needs_wrist_camera": any("wrist_image" in key for key in pictures),
            "n_external_cameras": len(
                {key[:-5] for key in pictures if "exterior_image" in key and key.endswith("_left")}
            ),
            "needs_stereo_camera": any(key.endswith("_right") for key in pictures),
            "needs_session_id": True,
            "action_space": self.config.action_space,
        }

    def read(self, request: Any) -> Ask:
        told = _dictionary(request)
        endpoint = told.get("endpoint")
        session = _session_name(told.get("session_id"))
        if endpoint == "reset":
            return Ask(observation=None, session=session)
        if endpoint != "infer":
            raise expected("endpoint infer or reset", got=repr(endpoint)[:80], do="name one of the two")
        return Ask(observation=self.keys.observation(told), session=session)

    def reply(self, answer: Answer, timing: Timing) -> bytes:
        return pack(answer.actions if self.config.bare else {"actions": answer.actions})


def _dictionary(request: Any) -> Mapping[Any, Any]:
    if not isinstance(request, Mapping):
        raise expected(
            "a dictionary of observations", got=type(request).__name__, do="send one, as openpi's client does"
        )
    return request


def _session_name(value: Any) -> str:
    """A session's identity, told as text, a number or a small array of numbers; none is a session too."""
    if value is None:
        return ""
    if isinstance(value, np.ndarray) and value.size <= 16:
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, str | int | float | list) or len(str(value)) > 256:
        raise expected("session_id as short text or a number", got=type(value).__name__, do="send a shorter one")
    return str(value)
