"""A client that misbehaves, leaves or lacks the token harms itself alone; everyone else is answered as before."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgpack")
pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.control.server_fakes import (
    CHUNK,
    SPACE,
    STATE,
    Gated,
    Recalling,
    counted,
    get,
    observation,
    raw,
    request,
    running,
    served,
    until,
)
from wam.contracts import Observation, WamError
from wam.control.client import Client, RemotePolicy
from wam.control.codec import pack, unpack
from wam.control.policy import Policy
from wam.control.server.config import ServeConfig
from wam.control.server.running import serving
from wam.control.server.server import PolicyServer

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def shared() -> Iterator[PolicyServer]:
    """One server that a whole sequence of bad clients meets."""
    with running(frame_mib=0.5, sessions=8) as server:
        yield server


@contextlib.contextmanager
def unharmed(server: PolicyServer) -> Iterator[None]:
    """A client connected before and one connected after are both answered."""
    with Client(server.address) as before:
        assert before.plan(observation(1.0))[0, 0] == 1
        yield
        assert before.plan(observation(2.0))[0, 0] == 2
    with Client(server.address) as after:
        assert after.plan(observation(3.0)).shape == (CHUNK, 2)


class TestAnswers:
    def test_a_client_is_told_what_it_must_know(self, shared: PolicyServer) -> None:
        with Client(shared.address) as client:
            said = client.metadata
            assert client.action_space == SPACE
        assert said["protocol_version"] == 1
        assert (said["action_dim"], said["action_chunk_size"], said["control_hz"]) == (2, CHUNK, 20)
        assert (said["cameras"], said["image_resolution"]) == (["front", "wrist"], [8, 8])
        assert said["state"] == {"dim": STATE, "names": []}
        assert (said["model_sha256"], said["model_is_random"]) == ("0123456789abcdef", False)
        assert said["needs_session_id"] is False

    def test_a_reply_is_as_openpi_writes_it(self, shared: PolicyServer) -> None:
        with raw(shared) as client:
            replies = []
            for value in (0.25, 0.5):
                client.send(pack(request(value)))
                replies.append(unpack(client.recv()))
        assert [reply["actions"].dtype for reply in replies] == [np.float32] * 2
        assert [float(reply["actions"][0, 0]) for reply in replies] == [0.25, 0.5]
        assert all(0 <= reply["policy_timing"]["infer_ms"] <= reply["server_timing"]["infer_ms"] for reply in replies)
        assert ["prev_total_ms" in reply["server_timing"] for reply in replies] == [False, True]
        arrays = [value for reply in replies for value in reply.values() if isinstance(value, np.ndarray)]
        assert all(array.shape[0] == CHUNK for array in arrays)  # openpi's broker indexes every array by the step

    def test_two_sessions_are_apart(self, shared: PolicyServer) -> None:
        with Client(shared.address) as one, Client(shared.address) as two:
            counts = [float(client.plan(observation())[0, 1]) for client in (one, one, two, one, two)]
            one.reset()
            counts += [float(client.plan(observation())[0, 1]) for client in (one, two, one)]
        assert counts == [1, 2, 1, 3, 2, 1, 3, 2]
        with Client(shared.address) as next_one:
            assert next_one.plan(observation())[0, 1] == 1

    def test_a_remote_policy_is_a_policy_whose_slots_are_sessions(self) -> None:
        policy = Recalling(seconds=0.05)
        with running(policy, gather_ms=200.0) as server:
            remote = RemotePolicy(server.address)
            assert isinstance(remote, Policy)
            assert remote.chunk == CHUNK
            remote.act([observation(1.0), observation(2.0), observation(3.0)])
            found = remote.act([observation(4.0), observation(5.0)], slots=[2, 0])
            remote.reset(2)
            last = remote.act([observation(6.0)], slots=[2])
            remote.close()
        assert found[:, 0].tolist() == [[4, 2], [5, 2]]
        assert last[:, 0].tolist() == [[6, 1]]
        assert sorted(policy.calls[-2]) == [4, 5]  # answered together

    def test_many_clients_share_calls(self) -> None:
        policy = Recalling(seconds=0.05)
        with running(policy, batch=8) as server:
            clients = [Client(server.address) for _ in range(8)]
            for turn in range(3):
                for client in clients:
                    client.send(client.request(observation(float(turn))))
                for client in clients:
                    assert client.receive()["actions"][0].tolist() == [turn, turn + 1]
            assert counted(server, 'wam_requests_total{outcome="answered"}') == 24
            assert counted(server, "wam_sessions") == 8
            for client in clients:
                client.close()
        warm = 2
        assert len(policy.calls) - warm < 24

    def test_the_policy_is_warm_before_anyone_can_connect(self) -> None:
        with running(Recalling(seconds=0.1), batch=4) as server:
            assert server.warm_s >= 0.2
            assert server.served.policy.calls == [[0.0], [0.0] * 4]  # type: ignore[attr-defined]

    def test_health_is_answered_while_the_policy_computes(self) -> None:
        policy = Gated()
        with running(policy, batch=1) as server, Client(server.address) as client:
            policy.hold()
            client.send(client.request(observation()))
            assert policy.computing.wait(60)
            assert get(server, "/healthz") == (200, "OK\n")
            policy.gate.set()
            client.receive()

    def test_a_policy_that_hangs_makes_health_say_so(self) -> None:
        policy = Gated()
        with running(policy, batch=1, stuck_s=0.1) as server, Client(server.address) as client:
            policy.hold()
            client.send(client.request(observation()))
            assert until(lambda: get(server, "/healthz") == (503, "stuck\n"))
            policy.gate.set()
            client.receive()
            assert get(server, "/healthz") == (200, "OK\n")


BAD_FRAMES = {
    "noise": b"\xc1\xff\x00garbage",
    "truncated": pack(request())[:-5],
    "object dtype": pack(request()).replace(b"<f4", b"|O8"),
    "no dictionary": pack([1, 2, 3]),
    "a number": pack(7),
    "deep": b"\x91" * 100_000 + b"\x00",
    "many": b"\xdd\x00\x01\x00\x00" + b"\x90" * 65536,
    "text": "hello",
    "empty": b"",
    "unknown camera": pack({key.replace("wrist", "hand"): value for key, value in request().items()}),
    "no sentence": pack(request(prompt=None)),
    "NaN": pack(request(**{"observation/state": np.array([0, np.nan, 0], np.float32)})),
    "infinite": pack(request(**{"observation/state": np.array([np.inf, 0, 0], np.float32)})),
    "float picture": pack(request(**{"observation/front": np.zeros((8, 8, 3), np.float32)})),
}


class TestBadClients:
    @pytest.mark.parametrize("name", BAD_FRAMES)
    def test_a_bad_frame_is_answered_by_a_sentence_and_ends_its_session_alone(
        self, name: str, shared: PolicyServer
    ) -> None:
        before = counted(shared, 'wam_requests_total{outcome="refused"}')
        with unharmed(shared), raw(shared) as bad:
            bad.send(BAD_FRAMES[name])
            said = bad.recv()
            assert isinstance(said, str)
            assert said.startswith("expected ")
            assert "Traceback" not in said
            with pytest.raises(ConnectionClosed) as closed:
                bad.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1011
        assert counted(shared, 'wam_requests_total{outcome="refused"}') == before + 1
        assert counted(shared, 'wam_requests_total{outcome="failed"}') == 0

    def test_an_unknown_camera_key_is_named_with_what_came(self, shared: PolicyServer) -> None:
        with (
            Client(shared.address) as client,
            pytest.raises(WamError, match=r"'observation/wrist', got .*hand") as said,
        ):
            client.infer({key.replace("wrist", "hand"): value for key, value in request().items()})
        assert "refused" in str(said.value)

    def test_an_oversize_frame_is_not_read(self, shared: PolicyServer) -> None:
        with unharmed(shared), raw(shared) as bad:
            with contextlib.suppress(ConnectionClosed, OSError):
                bad.send(bytes(2**20))
            with pytest.raises((ConnectionClosed, OSError)) as closed:
                bad.recv()
            assert getattr(closed.value, "rcvd", None) is None or closed.value.rcvd.code == 1009  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        "noise",
        [b"\x00" * 64, b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", b"\x16\x03\x01\x02\x00",
         b"GET /" + b"a" * 100_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n"],
    )  # fmt: skip
    def test_what_is_no_websocket_is_turned_away(self, noise: bytes, shared: PolicyServer) -> None:
        with unharmed(shared), socket.create_connection(("127.0.0.1", shared.port), timeout=30) as bad:
            with contextlib.suppress(OSError):
                bad.sendall(noise)
                bad.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while bad.recv(65536):
                    pass

    def test_broken_frames_of_the_websocket_itself_end_their_session_alone(self, shared: PolicyServer) -> None:
        with unharmed(shared):
            bad = raw(shared)
            bad.socket.sendall(b"\xff\xff\xff\xff" * 10)
            with pytest.raises((ConnectionClosed, OSError)):
                bad.recv(timeout=30)

    def test_clients_that_vanish_leave_room_for_others(self, shared: PolicyServer) -> None:
        for _ in range(3):
            gone = [raw(shared) for _ in range(shared.config.sessions)]
            with pytest.raises(WamError, match="503 expected at most 8 sessions"):
                Client(shared.address)
            for client in gone:
                client.socket.close()  # without a word
            assert until(lambda: counted(shared, "wam_sessions") == 0)
        with unharmed(shared):
            pass

    def test_a_client_that_sends_slowly_keeps_nobody_waiting(self, shared: PolicyServer) -> None:
        """Its frame comes in two halves, and others are answered in between."""
        slow = raw(shared)
        frame = pack(request(5.0))
        sent = bytes([0x82, 0xFE, *len(frame).to_bytes(2, "big"), 0, 0, 0, 0]) + frame
        slow.socket.sendall(sent[:100])
        with unharmed(shared):
            pass
        slow.socket.sendall(sent[100:])
        assert unpack(slow.recv())["actions"][0, 0] == 5
        slow.close()

    def test_leaving_in_the_middle_of_an_inference_frees_the_session(self) -> None:
        policy = Gated()
        with running(policy, batch=1) as server:
            warm = len(policy.calls)
            staying = Client(server.address)
            policy.hold()
            staying.send(staying.request(observation(7.0)))
            assert policy.computing.wait(60)
            leaving = [raw(server) for _ in range(2)]
            for client in leaving:
                client.send(pack(request(8.0)))
            assert until(lambda: server.batcher._waiting.qsize() == 2)
            for client in leaving:
                client.socket.close()
            assert until(lambda: counted(server, 'wam_requests_total{outcome="vanished"}') == 2)
            policy.gate.set()
            assert staying.receive()["actions"][0, 0] == 7
            assert until(lambda: counted(server, "wam_sessions") == 1)
            assert staying.plan(observation(9.0))[0].tolist() == [9, 2]
            staying.close()
        assert policy.calls[warm:] == [[7.0], [9.0]]

    def test_a_client_that_takes_no_answer_is_closed(self) -> None:
        """A chunk far larger than what the system buffers, and a client that never reads."""

        class Verbose(Recalling):
            chunk = 2_000_000

            def act(self, observations: Any, slots: Any = None) -> np.ndarray:
                return np.zeros((len(observations), self.chunk, 2), np.float32)

        with running(Verbose(), batch=1, send_s=0.3) as server:
            deaf = raw(server, max_queue=1)
            for _ in range(3):
                deaf.send(pack(request()))
            assert until(lambda: counted(server, "wam_sessions") == 0, seconds=60)
            deaf.socket.close()

    def test_a_silent_client_is_closed(self) -> None:
        with running(idle_s=0.2) as server, raw(server) as silent:
            with pytest.raises(ConnectionClosed) as closed:
                silent.recv(timeout=30)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001


class TestErrorsOfItsOwn:
    class Secretive(Recalling):
        def act(self, observations: Any, slots: Any = None) -> np.ndarray:
            if len(self.calls) >= 2:  # not while it is warmed up
                raise RuntimeError("the password is swordfish")
            return super().act(observations, slots)

    def test_are_not_told(self, caplog: pytest.LogCaptureFixture) -> None:
        with running(self.Secretive()) as server:
            with Client(server.address) as client, pytest.raises(WamError) as said:
                client.plan(observation())
            assert "swordfish" not in str(said.value)
            assert "internal error" in str(said.value)
            assert counted(server, 'wam_requests_total{outcome="failed"}') == 1
        assert "swordfish" in caplog.text

    def test_are_told_for_debugging(self) -> None:
        with (
            running(self.Secretive(), debug=True) as server,
            Client(server.address) as client,
            pytest.raises(WamError, match="swordfish"),
        ):
            client.plan(observation())


class TestAccess:
    def test_without_the_token_there_is_nothing_but_health(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text(TOKEN)
        with running(host="0.0.0.0", token_file=path) as server:
            address = f"ws://127.0.0.1:{server.port}"
            for wrong in (None, "wrong", TOKEN[:-1]):
                with pytest.raises(WamError, match="401"):
                    Client(address, token=wrong)
            with pytest.raises(InvalidStatus):
                connect(f"{address}/live")
            assert get(server, "/")[0] == get(server, "/metrics")[0] == 401
            assert get(server, "/healthz") == (200, "OK\n")
            assert get(server, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
            with Client(address, token=TOKEN) as client:
                assert client.plan(observation(1.0))[0, 0] == 1

    def test_an_open_address_without_a_token_is_refused_before_anything_is_loaded_or_bound(self) -> None:
        policy = Recalling()
        with (
            pytest.raises(WamError, match="a token for an address that other machines reach"),
            running(policy, host="0.0.0.0"),
        ):
            pass
        assert policy.calls == []

    def test_it_speaks_tls(self, tmp_path: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to make a certificate with")
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(made, check=True, capture_output=True)
        with running(certificate=certificate, key=key) as server:
            assert server.address.startswith("wss://")
            with pytest.raises(WamError):
                Client(server.address)  # nobody vouches for it
            with Client(server.address, tls=ssl.create_default_context(cafile=str(certificate))) as client:
                assert client.plan(observation(1.0))[0, 0] == 1

    def test_a_certificate_that_is_none_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "a.pem").write_text("no certificate")
        with (
            pytest.raises(WamError, match="certificate"),
            running(certificate=tmp_path / "a.pem", key=tmp_path / "a.pem"),
        ):
            pass

    def test_a_port_in_use_is_said(self, shared: PolicyServer) -> None:
        with pytest.raises(WamError, match="listen on"), serving(served(), ServeConfig(port=shared.port)):
            pass


class TestStopping:
    def test_what_was_asked_is_answered_and_the_rest_say_goodbye(self) -> None:
        policy = Gated()
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(running(policy, batch=1))
            asking, idle = Client(server.address), raw(server)
            policy.hold()
            asking.send(asking.request(observation(4.0)))
            assert policy.computing.wait(60)
            closing = threading.Thread(target=stack.close)
            closing.start()
            with pytest.raises(ConnectionClosed) as closed:
                idle.recv(timeout=60)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            assert get(server, "/healthz") == (503, "draining\n")
            with pytest.raises(WamError, match="503 the server stops"):
                Client(server.address)
            policy.gate.set()
            assert asking.receive()["actions"][0, 0] == 4
            with pytest.raises(WamError, match="stay connected"):
                asking.plan(observation(5.0))
            closing.join()
            with pytest.raises(WamError, match="a policy server"):
                Client(server.address)


class TestClient:
    def test_a_server_that_is_not_there_is_said(self) -> None:
        with pytest.raises(WamError, match=r"a policy server at ws://127\.0\.0\.1:9"):
            Client("ws://127.0.0.1:9")

    def test_a_missing_camera_is_named_before_anything_is_sent(self, shared: PolicyServer) -> None:
        with Client(shared.address) as client, pytest.raises(WamError, match="add wrist"):
            client.plan(Observation(images={"front": np.zeros((8, 8, 3), np.uint8)}, state=np.zeros(3, np.float32)))

    def test_an_answer_that_comes_too_late_is_never_taken_for_the_next(self) -> None:
        policy = Gated()
        with running(policy, batch=1) as server:
            client = Client(server.address, answer_s=2.0)
            policy.hold()
            with pytest.raises(WamError, match="an answer within 2 s"):
                client.plan(observation(1.0))
            policy.gate.set()
            with pytest.raises(WamError, match="stay connected"):
                client.plan(observation(2.0))
