"""Arrays travel as openpi sends them, and nothing else gets in."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies
from hypothesis.extra.numpy import array_shapes, arrays

pytest.importorskip("msgpack")

import msgpack

from wam.contracts import WamError
from wam.control.codec import Limits, pack, unpack

PLAIN = ["?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", ">f4"]


def described(**changes: Any) -> bytes:
    """A frame with one array as openpi's client describes it, some of it changed."""
    told = {b"__ndarray__": True, b"data": bytes(24), b"dtype": "<f4", b"shape": [2, 3], **changes}
    return msgpack.packb({"observation/state": {k.encode() if isinstance(k, str) else k: v for k, v in told.items()}})


@given(strategies.sampled_from(PLAIN).flatmap(lambda kind: arrays(kind, array_shapes(min_dims=0, min_side=0))))
def test_an_array_comes_back_as_it_was(array: np.ndarray) -> None:
    found = unpack(pack({"a": array}))["a"]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


@given(
    strategies.recursive(
        strategies.none()
        | strategies.booleans()
        | strategies.integers(-(2**63), 2**64 - 1)
        | strategies.floats(allow_nan=False)
        | strategies.text(max_size=20)
        | strategies.binary(max_size=20),
        lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text(max_size=5), inner),
        max_leaves=20,
    )
)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    assert unpack(pack(value), Limits(depth=64)) == value


def test_scalars_keep_their_type() -> None:
    found = unpack(pack({"a": np.float32(0.5), "b": np.int16(-3), "c": np.bool_(True)}))
    assert (found["a"], found["b"], found["c"]) == (0.5, -3, True)
    assert (found["a"].dtype, found["b"].dtype) == (np.float32, np.int16)


def test_the_bytes_are_those_of_openpis_client() -> None:
    """Written out by hand from its format, not by the code under test."""
    array = np.array([[1, 2]], "<u2")
    by_hand = msgpack.packb(
        {"x": {b"__ndarray__": True, b"data": b"\x01\x00\x02\x00", b"dtype": "<u2", b"shape": (1, 2)}}
    )
    assert pack({"x": array}) == by_hand
    assert np.array_equal(unpack(by_hand)["x"], array)


@pytest.mark.parametrize(
    "dtype", ["|O", "O", "object", "<c8", "|V8", "<U4", "|S4", "<M8[s]", "<f16", "i4,f8", "f4 ", 7, None]
)
def test_a_dtype_that_is_not_of_plain_numbers_is_refused(dtype: Any) -> None:
    with pytest.raises(WamError, match="booleans, integers or floats"):
        unpack(described(dtype=dtype))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2, 4]},
        {"shape": [2]},
        {"shape": [-2, -3]},
        {"shape": [2**40, 2**40]},
        {"shape": [0, 2**62, 2**62], "data": b""},
        {"shape": [1] * 9 + [6]},
        {"shape": [True, 6]},
        {"shape": [2.0, 3]},
        {"shape": "23"},
        {"shape": None},
        {"data": bytes(23)},
        {"data": "text"},
        {"data": None},
    ],
)
def test_an_array_that_is_not_as_long_as_its_shape_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WamError, match="arrays"):
        unpack(described(**changes))


@pytest.mark.parametrize("data", ["7", None, [1], b"1"])
def test_a_scalar_that_is_no_number_is_refused(data: Any) -> None:
    with pytest.raises(WamError, match="scalars"):
        unpack(msgpack.packb({b"__npgeneric__": True, b"data": data, b"dtype": "<i4"}))


def test_a_scalar_too_large_for_its_type_is_refused() -> None:
    with pytest.raises(WamError):
        unpack(msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}))


def test_a_frame_cut_off_anywhere_is_refused() -> None:
    frame = pack({"a": np.arange(6.0), "b": [1, "two", {"c": None}], "d": 2**40, "e": "text" * 20})
    for length in range(len(frame)):
        with pytest.raises(WamError):
            unpack(frame[:length])


def test_more_than_one_value_is_refused() -> None:
    with pytest.raises(WamError, match="bytes behind it"):
        unpack(pack({"a": 1}) + b"\x00")


def test_deep_nesting_is_refused_before_anything_is_built() -> None:
    assert unpack(b"\x91" * 8 + b"\x01") == [[[[[[[[1]]]]]]]]
    for frame in (b"\x91" * 9 + b"\x01", b"\x91" * 1_000_000 + b"\x01", b"\x81\x01" * 5000 + b"\x01"):
        with pytest.raises(WamError, match="in one another"):
            unpack(frame)


def test_a_frame_of_very_many_values_is_refused() -> None:
    """Eight million empty lists are a frame of eight megabytes, and half a gigabyte once built."""
    with pytest.raises(WamError, match="at most 4096 values"):
        unpack(b"\xdd" + (8_000_000).to_bytes(4, "big") + b"\x90" * 8_000_000)


def test_a_frame_too_large_is_refused() -> None:
    with pytest.raises(WamError, match="at most 100 bytes"):
        unpack(bytes(101), Limits(frame_bytes=100))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\xc7\x01\x05\x00",
        b"\xd4\x01\x00",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\x81\x90\x01",
        b"\xa2\xff\xfe",
        "text",
    ],
    ids=["empty", "reserved", "ext", "fixext", "timestamp", "a list as key", "no UTF-8", "a text frame"],
)
def test_what_is_no_plain_msgpack_is_refused(frame: Any) -> None:
    with pytest.raises(WamError):
        unpack(frame)


@given(strategies.binary(max_size=200))
def test_noise_is_a_value_or_an_error_of_the_users(noise: bytes) -> None:
    with contextlib.suppress(WamError):
        unpack(noise)


@given(strategies.data())
def test_a_frame_with_some_bytes_changed_is_a_value_or_an_error_of_the_users(data: strategies.DataObject) -> None:
    frame = bytearray(described())
    for _ in range(data.draw(strategies.integers(1, 4))):
        frame[data.draw(strategies.integers(0, len(frame) - 1))] = data.draw(strategies.integers(0, 255))
    with contextlib.suppress(WamError):
        unpack(bytes(frame))


@pytest.mark.parametrize("value", [np.array([object()]), np.array([1j]), np.zeros(2, "V4"), {1, 2}, object(), 2**70])
def test_what_no_reader_would_take_is_not_sent(value: Any) -> None:
    with pytest.raises(WamError):
        pack({"a": value})


def test_the_robots_side_needs_numpy_msgpack_and_websockets_only() -> None:
    """Nothing but these three, this package and the standard library can be imported, and the client still is."""
    pytest.importorskip("websockets")
    code = """
import sys
class Closed:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "msgpack", "websockets", "wam"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Closed())
import wam.control.client
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
