"""Each protocol as its own clients know it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")

from websockets.sync.client import ClientConnection, connect

from tests.control.server_fakes import Recalling, observation, raw, running, served
from wam.contracts import WamError
from wam.control.codec import pack, unpack
from wam.control.server.batcher import Answer
from wam.control.server.config import KeysConfig, RoboarenaConfig, ServeConfig
from wam.control.server.dialects import Timing, make_dialect
from wam.control.server.keys import KeyMap

KEYS = KeysConfig(
    images={"front": "observation/exterior_image_0_left", "wrist": "observation/wrist_image_left"},
    state=["observation/joint_position"],
)


def ask(client: ClientConnection, session: Any, endpoint: str = "infer", value: float = 1.0) -> Any:
    seen = observation(value)
    told = {
        "observation/exterior_image_0_left": seen.images["front"],
        "observation/wrist_image_left": seen.images["wrist"],
        "observation/joint_position": seen.state,
        "prompt": "push",
    }
    client.send(pack({"endpoint": endpoint, "session_id": session, **(told if endpoint == "infer" else {})}))
    reply = client.recv()
    return reply if isinstance(reply, str) else unpack(reply)


def test_its_metadata_hold_its_own_keys_and_no_others() -> None:
    with running(dialect="roboarena", keys=KEYS) as server, connect(server.address) as client:
        assert unpack(client.recv()) == {
            "image_resolution": [8, 8],
            "needs_wrist_camera": True,
            "n_external_cameras": 1,
            "needs_stereo_camera": False,
            "needs_session_id": True,
            "action_space": "joint_position",
        }


def test_sessions_of_one_connection_are_apart_and_the_eldest_gives_way() -> None:
    each = RoboarenaConfig(sessions_each=2)
    with running(dialect="roboarena", keys=KEYS, roboarena=each) as server, raw(server) as client:
        ids = ["a", np.array([7], np.int32), "a", np.array([7], np.int32), "a"]
        assert [float(ask(client, session)[0, 1]) for session in ids] == [1, 1, 2, 2, 3]
        assert ask(client, "a", "reset") == "reset successful"
        assert ask(client, "a")[0].tolist() == [1, 1]
        ask(client, "c")  # 7 gives way
        assert ask(client, "a")[0, 1] == 2
        assert ask(client, np.array([7], np.int32))[0, 1] == 1


def test_an_unknown_endpoint_is_refused() -> None:
    with running(dialect="roboarena", keys=KEYS) as server, raw(server) as client:
        assert "endpoint infer or reset" in ask(client, "a", "explode")


def test_roboarenas_reply_is_the_bare_array_or_a_dictionary() -> None:
    answer = Answer(actions=np.ones((5, 2), np.float32), infer_ms=1.0, queue_ms=0.0, batch=1)
    for bare in (True, False):
        config = ServeConfig(dialect="roboarena", keys=KEYS, roboarena=RoboarenaConfig(bare=bare))
        dialect = make_dialect(config, served(), KeyMap(KEYS, served()))
        reply = unpack(dialect.reply(answer, Timing(total_ms=1.0, previous_ms=None)))
        assert np.array_equal(reply if bare else reply["actions"], answer.actions)


def test_names_of_the_state_are_told_and_must_be_as_many_as_its_numbers() -> None:
    keys = KeyMap(KeysConfig(), served())
    told = make_dialect(ServeConfig(state_names=["x", "y", "z"]), served(), keys).metadata()["state"]
    assert told == {"dim": 3, "names": ["x", "y", "z"]}
    with pytest.raises(WamError, match="3 state_names"):
        make_dialect(ServeConfig(state_names=["x"]), served(Recalling()), keys)
