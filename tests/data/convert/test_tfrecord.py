"""TFRecords are read to the byte, and damage to any byte is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign import example, slow_masked_crc32c, write_tfrecord
from hypothesis import given, settings
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.data.convert.tfrecord import crc32c, masked_crc32c, parse_example, read_record, record_offsets


def test_the_checksum_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the standard's check value


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0, 1, 255, 16383, 16384, 16385, 40000]))
@settings(max_examples=14, deadline=None)
def test_the_checksum_in_lanes_equals_the_one_bit_by_bit(seed: int, size: int) -> None:
    data = np.random.default_rng(seed).bytes(size)
    assert masked_crc32c(data) == slow_masked_crc32c(data)


_FEATURES = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.one_of(
        st.lists(st.binary(max_size=20), min_size=1, max_size=4),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5).map(lambda v: np.array(v, np.int64)),
        st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5).map(lambda v: np.array(v, np.float32)),
    ),
    max_size=5,
)


@given(features=_FEATURES)
@settings(max_examples=60, deadline=None)
def test_an_example_is_read_back_value_for_value(features) -> None:
    read = parse_example(example(features))
    assert set(read) == set(features)
    for name, value in features.items():
        if isinstance(value, list):
            assert read[name] == value
        else:
            np.testing.assert_array_equal(read[name], value)


def test_floats_that_are_not_packed_are_read_too() -> None:
    one = b"\x0d" + np.float32(1.5).tobytes() + b"\x0d" + np.float32(-2).tobytes()  # field 1, wire type 5
    entry = b"\x0a\x01f\x12" + bytes([len(one) + 2]) + b"\x12" + bytes([len(one)]) + one
    message = b"\x0a" + bytes([len(entry) + 2]) + b"\x0a" + bytes([len(entry)]) + entry
    np.testing.assert_array_equal(parse_example(message)["f"], [1.5, -2])


@given(position=st.integers(0, 2**16), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_one_flipped_bit_anywhere_is_one_clear_sentence(tmp_path_factory, position: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("record")
    path = write_tfrecord(folder / "x.tfrecord", [example({"a": np.arange(30)}), example({"b": [b"text"]})])
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(bytes(data))

    def read_all() -> None:
        for index, (offset, length) in enumerate(record_offsets(path)):
            read_record(path, offset, length, index=index)

    with pytest.raises(WamError, match="damaged"):
        read_all()


@pytest.mark.parametrize("kept", [5, 12, 40, -3])
def test_a_file_cut_off_anywhere_is_one_clear_sentence(tmp_path: Path, kept: int) -> None:
    path = write_tfrecord(tmp_path / "x.tfrecord", [example({"a": np.arange(30)})])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WamError, match=r"expected record 0 of .* whole"):
        record_offsets(path)


def test_bytes_that_are_no_example_are_one_clear_sentence() -> None:
    with pytest.raises(WamError, match=r"expected a tf\.train\.Example"):
        parse_example(b"\xff\xff\xff\xff not a message")
