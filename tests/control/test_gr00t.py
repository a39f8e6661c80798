"""GR00T's clients are answered as by their own server, and cannot do what its own server lets anyone do."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")
pytest.importorskip("msgpack")
pytest.importorskip("zmq")

import msgpack
import zmq

from tests.control.server_fakes import CHUNK, SIZE, Recalling, counted, observation, running
from wam.contracts import WamError
from wam.control.client import Client
from wam.control.server.config import Gr00tConfig, KeysConfig

KEYS = KeysConfig(image="video/{camera}", state=["state/arm"], prompt="language/task")
TOKEN = "0123456789abcdef0123456789abcdef"


def serving(policy: Any = None, **settings: Any) -> Any:
    gr00t = Gr00tConfig(port=0, actions={"arm": [0, 1], "gripper": [1, 2]})
    return running(policy, **{"dialect": "gr00t", "keys": KEYS, "gr00t": gr00t, **settings})


def as_npy(array: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=array.dtype.hasobject)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def unpacked(found: Any) -> Any:
    if isinstance(found, dict) and found.get("__ndarray_class__"):
        return np.load(io.BytesIO(found["as_npy"]), allow_pickle=False)
    return found


class Gr00tClient:
    """A REQ socket with its protocol, written from its description."""

    def __init__(self, port: int) -> None:
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 30_000)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def __call__(self, endpoint: Any, data: Any = None, **more: Any) -> Any:
        return self.raw(msgpack.packb({"endpoint": endpoint, "data": data, **more}, default=as_npy))

    def raw(self, frame: bytes) -> Any:
        self.socket.send(frame)
        return msgpack.unpackb(self.socket.recv(), object_hook=unpacked)


@contextlib.contextmanager
def client(port: int) -> Iterator[Gr00tClient]:
    opened = Gr00tClient(port)
    try:
        yield opened
    finally:
        opened.socket.close()


def told(*values: float, **changes: Any) -> dict[str, Any]:
    """An observation of as many rows as values, two steps each, of which the last counts."""
    pictures = np.full((len(values), 2, SIZE, SIZE, 3), 90, np.uint8)
    state = np.zeros((len(values), 2, 3), np.float32)
    state[:, 0, 0], state[:, 1, 0] = 99, values
    seen = {
        "video": {"front": pictures, "wrist": pictures},
        "state": {"arm": state},
        "language": {"task": [["ignored", "push"]] * len(values)},
    }
    return {"observation": {**seen, **changes}, "options": None}


def test_rows_are_answered_in_groups_of_actions() -> None:
    policy = Recalling()
    with serving(policy) as server, client(server.gr00t_port) as ask:
        action, info = ask("get_action", told(4.0, 5.0))
        assert info == {}
        assert {name: array.shape for name, array in action.items()} == {
            "arm": (2, CHUNK, 1),
            "gripper": (2, CHUNK, 1),
        }
        assert action["arm"].dtype == np.float32
        assert action["arm"][:, 0, 0].tolist() == [4, 5]
        assert policy.told[-2:] == ["push", "push"]


def test_sockets_are_sessions_and_a_reset_forgets_one_of_them() -> None:
    with serving() as server, client(server.gr00t_port) as one, client(server.gr00t_port) as two:
        counts = [ask("get_action", told(0.0))[0]["gripper"][0, 0, 0] for ask in (one, one, two, one)]
        assert counts == [1, 2, 1, 3]
        assert one("reset", {"options": None}) == {}
        assert [ask("get_action", told(0.0))[0]["gripper"][0, 0, 0] for ask in (one, two)] == [1, 2]


def test_it_answers_to_a_ping_and_says_what_it_wants() -> None:
    with serving() as server, client(server.gr00t_port) as ask:
        assert ask("ping")["status"] == "ok"
        wants = ask("get_modality_config")
        assert all(entry["__ModalityConfig_class__"] for entry in wants.values())
        assert wants["video"]["as_json"] == {"delta_indices": [0], "modality_keys": ["front", "wrist"]}
        assert wants["state"]["as_json"]["modality_keys"] == ["arm"]
        assert wants["action"]["as_json"] == {"delta_indices": list(range(CHUNK)), "modality_keys": ["arm", "gripper"]}
        assert wants["language"]["as_json"]["modality_keys"] == ["task"]


def test_nobody_can_kill_it_and_bad_requests_harm_no_other() -> None:
    header = b"\x93NUMPY\x01\x00\x76\x00"
    objects = as_npy(np.array([None, 1], dtype=object))
    huge = {"__ndarray_class__": True, "as_npy": header + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }"
            .ljust(0x75) + b"\n"}  # fmt: skip
    with serving() as server, client(server.gr00t_port) as ask, client(server.gr00t_port) as good:
        for frame, words in (
            (msgpack.packb({"endpoint": "kill"}), "an endpoint among"),
            (msgpack.packb({"endpoint": [1]}), "an endpoint among"),
            (b"\xc1", "plain values"),
            (b"\x91" * 50_000 + b"\x01", "in one another"),
            (msgpack.packb([1]), "a dictionary"),
            (msgpack.packb({"endpoint": "get_action"}), "with an observation"),
            (msgpack.packb({"data": {"observation": {"state": {"arm": objects}}}}), "arrays of numbers"),
            (msgpack.packb({"data": {"observation": {"state": {"arm": huge}}}}), "arrays of numbers"),
            (msgpack.packb({"data": {"a": {"__ndarray_class__": True, "as_npy": header[:7]}}}), ".npy"),
            (msgpack.packb({"data": {"a": {"__ndarray_class__": True, "as_npy": header + b"{" * 0x76}}}), ".npy"),
            (msgpack.packb({"data": {"a": {"__ndarray_class__": True, "as_npy": 3}}}), ".npy"),
        ):
            assert words in ask.raw(frame)["error"]
        for changes, words in (
            ({"video": {}}, "video/front"),
            ({"video": 3}, "a dictionary of video"),
            ({"state": {"arm": np.zeros((2, 1, 3), np.float32)}}, "the same 1 to 16 rows"),
            ({"state": {"arm": np.full((1, 1, 3), np.nan, np.float32)}}, "finite"),
            ({"state": {"arm": np.zeros(3, np.float32)}}, "rows of steps"),
            ({"language": {"task": ["push"]}}, "rows of steps"),
            ({"language": {"task": [[]]}}, "rows of steps"),
        ):
            assert words in ask("get_action", told(1.0, **changes))["error"], words
        assert good("get_action", told(7.0))[0]["arm"][0, 0, 0] == 7
        assert counted(server, 'wam_requests_total{outcome="failed"}') == 0


def test_what_no_req_socket_would_send_gets_no_answer_and_harms_nobody() -> None:
    with serving(frame_mib=0.2) as server, client(server.gr00t_port) as good:
        rude = zmq.Context.instance().socket(zmq.DEALER)
        rude.setsockopt(zmq.LINGER, 0)
        rude.connect(f"tcp://127.0.0.1:{server.gr00t_port}")
        rude.send(b"one frame")
        rude.send_multipart([b"", b"a", b"b"])
        rude.send_multipart([b"", bytes(2**20)])  # its size alone ends the connection
        assert good("get_action", told(7.0))[0]["arm"][0, 0, 0] == 7
        rude.close()


def test_the_eldest_session_gives_way() -> None:
    with serving(sessions=2) as server, contextlib.ExitStack() as stack:
        a, b, c = (stack.enter_context(client(server.gr00t_port)) for _ in range(3))
        counts = [ask("get_action", told(0.0))[0]["gripper"][0, 0, 0] for ask in (a, b, a, c, a, b)]
        assert counts == [1, 1, 2, 1, 3, 1]


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with serving(token_file=tmp_path / "token") as server, client(server.gr00t_port) as ask:
        for token in ({}, {"api_token": "guess"}, {"api_token": 3}):
            for endpoint in ("ping", "get_action", "reset"):
                assert "token" in ask(endpoint, told(1.0), **token)["error"]
        assert ask("ping", api_token=TOKEN)["status"] == "ok"


def test_openpis_protocol_is_spoken_beside_it() -> None:
    with serving() as server, Client(server.address) as other:
        assert other.plan(observation(3.0))[0, 0] == 3


def test_groups_of_actions_that_the_model_does_not_have_are_refused() -> None:
    wrong = Gr00tConfig(port=0, actions={"arm": [0, 7]})
    with pytest.raises(WamError, match="of 2 actions"), serving(gr00t=wrong):
        pass
