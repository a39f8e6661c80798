"""TFRecord files of `tf.train.Example` messages, read without TensorFlow.

A record is  u64 length | u32 masked crc32c(length) | data | u32 masked crc32c(data), little endian. The data is one
protobuf message, `Example{Features{map<string, Feature{bytes | float | int64 list}}}}`, of which only the wire format
is needed: tags, varints and length-delimited fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from wam.contracts import WamError, expected

FeatureValue = list[bytes] | np.ndarray

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
_HEADER = struct.Struct("<QI")
_LANES = 256


@cache
def _table() -> np.ndarray:
    """(256,) uint32: the crc of each single byte."""
    value = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        value = np.where(value & 1, (value >> 1) ^ np.uint32(_POLYNOMIAL), value >> 1).astype(np.uint32)
    return value


@cache
def _skip_tables(length: int) -> list[list[int]]:
    """Four tables of 256 that advance a crc over `length` zero bytes; the step is linear over GF(2)."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(length):
        bits = (bits >> 8) ^ _table()[bits & 0xFF]
    powers = [int(b) for b in bits]
    tables = []
    for byte in range(4):
        row = [0] * 256
        for value in range(1, 256):
            low = value & -value
            row[value] = row[value ^ low] ^ powers[8 * byte + low.bit_length() - 1]
        tables.append(row)
    return tables


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum of `data`, as TFRecord (unmasked), iSCSI and ext4 use it.

    Long inputs are cut into equal lanes whose checksums are computed side by side and then joined.
    """
    crc = 0xFFFFFFFF
    length = len(data) // _LANES
    length -= length % 64  # few distinct lane lengths, so that the tables are reused
    head = length * _LANES
    if length:
        lanes = np.frombuffer(data, np.uint8, head).reshape(_LANES, length)
        table, state = _table(), np.zeros(_LANES, np.uint32)
        for column in np.ascontiguousarray(lanes.T):
            state = (state >> 8) ^ table[(state ^ column) & 0xFF]
        a, b, c, d = _skip_tables(length)
        for lane in state.tolist():
            crc = a[crc & 0xFF] ^ b[crc >> 8 & 0xFF] ^ c[crc >> 16 & 0xFF] ^ d[crc >> 24] ^ lane
    small = _byte_table()
    for byte in data[head:]:
        crc = (crc >> 8) ^ small[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@cache
def _byte_table() -> list[int]:
    return [int(v) for v in _table()]


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated right by 15 bits plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record_offsets(path: Path) -> list[tuple[int, int]]:
    """(offset, length) of the data of each record, from the checked headers alone."""
    size, offset = path.stat().st_size, 0
    found: list[tuple[int, int]] = []
    with path.open("rb") as file:
        while offset < size:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise _damaged(path, len(found), f"a header cut off after {len(header)} bytes")
            length, check = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != check:
                raise _damaged(path, len(found), f"a wrong checksum of the length field at byte {offset}")
            if offset + _HEADER.size + length + 4 > size:
                raise _damaged(path, len(found), f"{size - offset - _HEADER.size} of {length + 4} bytes")
            found.append((offset + _HEADER.size, length))
            offset += _HEADER.size + length + 4
            file.seek(offset)
    return found


def read_record(path: Path, offset: int, length: int, *, index: int = 0) -> bytes:
    """The data of one record, its checksum verified."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(length)
        check = file.read(4)
    if len(data) < length or len(check) < 4:
        raise _damaged(path, index, f"{len(data) + len(check)} of {length + 4} bytes")
    if masked_crc32c(data) != struct.unpack("<I", check)[0]:
        raise _damaged(path, index, "a wrong checksum of the data")
    return data


def parse_example(message: bytes) -> dict[str, FeatureValue]:
    """A `tf.train.Example` as {name: list of bytes | float32 array | int64 array}."""
    found: dict[str, FeatureValue] = {}
    try:
        for _, features in _fields(message, only=1):
            for _, entry in _fields(features, only=1):
                parts = dict(_fields(entry))
                found[bytes(parts[1]).decode()] = _feature(parts.get(2, memoryview(b"")))
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise expected(
            "a tf.train.Example message in the TFRecord", got=f"{len(message)} bytes that do not parse ({error})",
            do="check that the file holds RLDS episodes",
        ) from error  # fmt: skip
    return found


def _feature(value: memoryview) -> FeatureValue:
    for kind, items in _fields(value):
        payloads = [item for _, item in _fields(items, only=1)]
        if kind == 1:
            return [bytes(p) for p in payloads]
        if kind == 2:  # packed, or one fixed32 per value
            return np.frombuffer(b"".join(bytes(p) for p in payloads), "<f4").copy()
        if kind == 3:
            numbers = [n for p in payloads for n in (_varints(p) if isinstance(p, memoryview) else [p])]
            return np.array(numbers, np.uint64).astype(np.int64)
    return []


def _fields(message: bytes | memoryview | int, only: int | None = None) -> Iterator[tuple[int, memoryview]]:
    """(field number, payload): the bytes of a length-delimited or fixed field, the number itself of a varint."""
    if isinstance(message, int):
        raise ValueError("a number where a message belongs")
    view, position = memoryview(message), 0
    while position < len(view):
        tag, position = _varint(view, position)
        wire = tag & 7
        if wire == 0:
            payload, position = _varint(view, position)
        elif wire in (1, 2, 5):
            size = {1: 8, 5: 4}.get(wire)
            if size is None:
                size, position = _varint(view, position)
            if position + size > len(view):
                raise ValueError("a field runs past the message's end")
            payload, position = view[position : position + size], position + size  # type: ignore[assignment]
        else:
            raise ValueError(f"wire type {wire}")
        if only is None or tag >> 3 == only:
            yield tag >> 3, payload  # type: ignore[misc]


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _varints(view: memoryview) -> Iterator[int]:
    position = 0
    while position < len(view):
        value, position = _varint(view, position)
        yield value


def _damaged(path: Path, index: int, got: str) -> WamError:
    return expected(
        f"record {index} of {path} whole", got=got, do="the file is damaged or no TFRecord: fetch or write it again"
    )
