"""All that can be set about serving a policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wam.contracts import expected


@dataclass(kw_only=True)
class KeysConfig:
    """Under which keys of a request a model finds what it sees; `a/b` is the key `a/b`, or `b` of the dictionary under `a`.

    images: camera of the model -> key; image: the key of cameras that are not named there, `{camera}` being theirs. state:
    keys whose numbers, one after another, are the model's state; none: the model is told no state. prompt: key of the
    sentence; default_prompt: what is told where a request has none.
    """

    images: dict[str, str] = field(default_factory=dict)
    image: str = "observation/{camera}"
    state: list[str] = field(default_factory=lambda: ["observation/state"])
    prompt: str = "prompt"
    default_prompt: str | None = None


@dataclass(kw_only=True)
class RoboarenaConfig:
    """What the roboarena dialect says of the model. bare: replies are the array of actions alone, as its own server's are,
    else a dictionary with `actions`. sessions_each: sessions that one connection may have; its eldest gives way."""

    action_space: Literal["joint_position", "joint_velocity", "cartesian_position", "cartesian_velocity"] = (
        "joint_position"
    )
    bare: bool = True
    sessions_each: int = 4


@dataclass(kw_only=True)
class Gr00tConfig:
    """GR00T's protocol. port: of its ZMQ socket, beside the server's own (0: a free one). actions: name of a group of actions
    -> [first, last + 1] among the model's; none: one group, `action`, of all."""

    port: int = 5555
    actions: dict[str, list[int]] = field(default_factory=dict)


@dataclass(kw_only=True)
class PairingOptions:
    """A student that is handed its teacher's thoughts, `hz` of them a second at most; 0: it acts alone. teacher: a checkpoint
    in place of that which its provenance names."""

    hz: float = 0.0
    teacher: str = ""


@dataclass(kw_only=True)
class RoutingOptions:
    """A student whose teacher is asked where it is unsure. calibration: a file of `wam eval routing`; empty: the student acts
    alone. share: of chunks that the teacher may be asked for. steps: of its sampling. teacher: as for pairing."""

    calibration: str = ""
    share: float = 0.2
    steps: int = 1
    teacher: str = ""


@dataclass(kw_only=True)
class PolicyOptions:
    """How the policy samples. threads: of torch; 0 leaves its choice. pairing, routing: of a student, with its teacher."""

    steps: int = 4
    guidance: float = 1.0
    conditional: Literal["policy", "joint"] = "policy"
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    pairing: PairingOptions = field(default_factory=PairingOptions)
    routing: RoutingOptions = field(default_factory=RoutingOptions)


@dataclass(kw_only=True)
class LiveConfig:
    """The page at `/`. hz: how often it is told; viewers: how many pages at once; imagine_every_s: how often the model
    imagines what its chunk brings about, while a page is open and nobody waits for an answer; 0: never."""

    enabled: bool = True
    hz: float = 5.0
    viewers: int = 8
    imagine_every_s: float = 2.0


@dataclass(kw_only=True)
class ServeConfig:
    """dialect: `gr00t` opens GR00T's socket beside one that speaks openpi's protocol.

    host: an address other than loopback needs `token_file`, a file with the token that clients send. port: 0 takes a free
    one. certificate, key: PEM files; with them the server speaks TLS. sessions: clients at once. batch: observations that
    one call of the policy answers; gather_ms: how long the first of them waits for the other sessions'. frame_mib: a
    request's size at most. idle_s: a session that asks nothing for so long is closed; send_s: so is one that takes no
    answer. drain_s: how long requests under way may take once the server is told to stop. stuck_s: an inference that takes
    longer makes /healthz say so. image_size: in place of the checkpoint's. state_names: told to clients. debug: errors of
    the server's own are sent in full.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    dialect: Literal["openpi", "roboarena", "gr00t"] = "openpi"
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    sessions: int = 64
    batch: int = 16
    gather_ms: float = 1.0
    frame_mib: float = 64.0
    prompt_characters: int = 2000
    idle_s: float = 3600.0
    send_s: float = 10.0
    drain_s: float = 30.0
    stuck_s: float = 60.0
    ping_s: float = 20.0
    pong_s: float = 60.0
    image_size: int = 0
    state_names: list[str] = field(default_factory=list)
    debug: bool = False
    keys: KeysConfig = field(default_factory=KeysConfig)
    roboarena: RoboarenaConfig = field(default_factory=RoboarenaConfig)
    gr00t: Gr00tConfig = field(default_factory=Gr00tConfig)
    policy: PolicyOptions = field(default_factory=PolicyOptions)
    live: LiveConfig = field(default_factory=LiveConfig)

    def validate(self) -> None:
        least = {
            "sessions": self.sessions,
            "batch": self.batch,
            "roboarena.sessions_each": self.roboarena.sessions_each,
        }
        for name, value in least.items():
            if value < 1:
                raise expected(f"{name} of at least 1", got=value, do=f"correct {name}")
        positive = {
            "frame_mib": self.frame_mib,
            "idle_s": self.idle_s,
            "send_s": self.send_s,
            "ping_s": self.ping_s,
            "pong_s": self.pong_s,
            "live.hz": self.live.hz,
        }
        for name, seconds in positive.items():
            if not seconds > 0:
                raise expected(f"{name} above 0", got=seconds, do=f"correct {name}")
        if (self.certificate is None) != (self.key is None):
            raise expected("a certificate and its key, or neither", got="one of them", do="give both files")

    @property
    def frame_bytes(self) -> int:
        return int(self.frame_mib * 2**20)
