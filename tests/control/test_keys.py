"""A request's keys become an observation of the model, or a sentence that says which key is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.control.server_fakes import SIZE, request, served
from wam.contracts import WamError
from wam.control.server.config import KeysConfig
from wam.control.server.keys import KeyMap
from wam.data.windows import resize


def keys(**changes: Any) -> KeyMap:
    return KeyMap(KeysConfig(**changes), served())


def test_a_request_with_the_default_keys_is_an_observation() -> None:
    told = request(0.5)
    seen = keys().observation(told)
    assert list(seen.images) == ["front", "wrist"]
    assert np.array_equal(seen.images["wrist"], told["observation/wrist"])
    assert seen.state is not None
    assert seen.state.tolist() == [0.5, 0, 0]
    assert seen.instruction == "push"


def test_keys_of_droid_are_named_by_config_and_what_is_not_asked_for_is_left() -> None:
    droid = keys(
        images={"front": "observation/exterior_image_1_left", "wrist": "observation/wrist_image_left"},
        state=["observation/joint_position", "observation/gripper_position"],
    )
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    seen = droid.observation(
        {
            "observation/exterior_image_1_left": picture,
            "observation/exterior_image_2_left": picture,
            "observation/wrist_image_left": picture,
            "observation/joint_position": np.array([1.0, 2.0]),
            "observation/gripper_position": 0.25,
            "prompt": "pick up the cup",
        }
    )
    assert np.array_equal(seen.images["front"], resize(picture[None], SIZE, SIZE)[0])
    assert seen.state is not None
    assert seen.state.tolist() == [1, 2, 0.25]
    assert seen.state.dtype == np.float32


def test_aloha_nests_its_cameras_and_puts_channels_first() -> None:
    aloha = keys(images={"front": "images/cam_high", "wrist": "images/cam_left_wrist"}, state=["state"])
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    first = np.moveaxis(picture, -1, 0)
    seen = aloha.observation({"state": [1, 2, 3], "images": {"cam_high": first, "cam_left_wrist": first}, "prompt": ""})
    assert np.array_equal(seen.images["front"], picture)


def test_a_camera_that_the_model_does_not_have_is_found_when_the_server_starts() -> None:
    with pytest.raises(WamError, match="cameras of the model, front, wrist, got wirst; did you mean 'wrist'"):
        keys(images={"wirst": "observation/image"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"observation/wrist": None}, "with 'observation/wrist', got observation/front, observation/state, prompt"),
        ({"observation/wrist": None, "observation/wrsit": 1}, "did you mean 'observation/wrsit'"),
        ({"observation/state": None}, "observation/state"),
        ({"prompt": None}, "'prompt'"),
        ({"prompt": b"push"}, "text"),
        ({"prompt": "a" * 2001}, "2001 characters"),
        ({"observation/front": np.zeros((8, 8, 3), np.float32)}, "uint8 of shape .* got float32"),
        ({"observation/front": np.zeros((8, 8), np.uint8)}, r"got uint8 of shape \(8, 8\)"),
        ({"observation/front": np.zeros((1, 8, 8, 3), np.uint8)}, "uint8 of shape"),
        ({"observation/front": np.zeros((0, 8, 3), np.uint8)}, "uint8 of shape"),
        ({"observation/front": np.zeros((1, 9000, 3), np.uint8)}, "sides up to"),
        ({"observation/front": "picture"}, "got str"),
        (
            {"observation/state": np.zeros(2, np.float32)},
            r"3 finite numbers up to 1e\+09 in observation/state, got 2 numbers",
        ),
        ({"observation/state": np.array([0, np.nan, 0])}, "1 of them not finite"),
        ({"observation/state": np.array([0, np.inf, 0])}, "1 of them not finite"),
        ({"observation/state": [1e300, 0, 0]}, "1 of them not finite"),
        ({"observation/state": [0, -3e38, 2e9]}, "2 of them not finite or larger"),
        ({"observation/state": [10**400, 0, 0]}, "a float holds"),
        ({"observation/state": "123"}, "as numbers"),
        ({"observation/state": [1, "2", 3]}, "as numbers"),
        ({"observation/state": {"a": 1}}, "as numbers"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WamError, match=words):
        keys().observation(request(**changes))


def test_a_sentence_may_have_a_default_and_the_state_may_be_kept_from_the_model() -> None:
    seen = keys(default_prompt="tidy up", state=[]).observation(request(prompt=None))
    assert seen.instruction == "tidy up"
    assert seen.state is None
