"""Arrays in msgpack as openpi writes them, and read without trust.

    array    {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [2, 3]}
    scalar   {b"__npgeneric__": True, b"data": number, b"dtype": "<f4"}

A reader that hands such a dictionary to numpy as it comes can be crashed by one frame: dtype "|O" makes pointers of the
bytes. So a frame is walked first and refused before anything is built of it if it nests too deep, holds too many values, is
cut off or carries extension types; arrays are of plain numbers only, and as long as their shape says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgpack
import numpy as np

from wam.contracts import WamError, expected

ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
DATA, DTYPE, SHAPE = b"data", b"dtype", b"shape"
MIB = 2**20

_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}
_DTYPES = {
    f"{order}{kind}{size}" for kind, sizes in _SIZES.items() for size in sizes for order in ("", "<", ">", "|", "=")
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one frame may hold: bytes in all, containers in one another, values in all, axes of an array."""

    frame_bytes: int = 64 * MIB
    depth: int = 8
    values: int = 4096
    axes: int = 8


def pack(value: Any) -> bytes:
    """Plain values and arrays of numbers as msgpack. Raises WamError for what no reader here would take."""
    try:
        return msgpack.packb(value, default=_described)
    except (TypeError, ValueError, OverflowError) as error:
        raise expected(
            "numbers, text, lists, dictionaries and arrays of numbers", got=error, do="convert it"
        ) from error


def unpack(frame: bytes | str, limits: Limits | None = None) -> Any:
    """The value of a frame; its arrays are read-only views. Raises WamError for whatever is not as it should be."""
    limits = limits or Limits()
    if not isinstance(frame, bytes | bytearray | memoryview):
        raise expected("a binary frame", got="a text frame", do="send msgpack")
    if len(frame) > limits.frame_bytes:
        raise _refused(f"at most {limits.frame_bytes} bytes", f"{len(frame)}", do="send smaller pictures")
    walk(memoryview(frame), limits)
    try:
        return msgpack.unpackb(frame, object_hook=lambda found: _array(found, limits))
    except WamError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise _refused("keys that are text or bytes, and text in UTF-8", str(error) or type(error).__name__) from error


def _refused(what: str, got: object, *, do: str = "pack it as openpi's client does") -> WamError:
    return expected(f"a frame of {what}", got=got, do=do)


# ---------------------------------------------------------------- structure

_FIXED = {
    0xC0: 0,
    0xC2: 0,
    0xC3: 0,
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # binary and text: bytes of the length that follows
_COUNTED = {
    0xDC: (2, 1),
    0xDD: (4, 1),
    0xDE: (2, 2),
    0xDF: (4, 2),
}  # lists and maps: bytes of the count, values for each


def walk(frame: memoryview, limits: Limits) -> None:
    """Check the structure of a msgpack frame without building it: each byte is looked at as a head or skipped."""
    position, values, wanted = 0, 0, [1]  # wanted: values that each open container still lacks
    length = len(frame)
    while wanted:
        if not wanted[-1]:
            wanted.pop()
            continue
        wanted[-1] -= 1
        if position >= length:
            raise _refused("as many values as it announces", "its end before the last of them")
        head = frame[position]
        position += 1
        inside = None
        if head <= 0x7F or head >= 0xE0:
            pass
        elif head in _FIXED:
            position += _FIXED[head]
        elif 0xA0 <= head <= 0xBF:
            position += head & 0x1F
        elif head in _SIZED:
            width = _SIZED[head]
            position += width + int.from_bytes(frame[position : position + width], "big")
        elif head <= 0x8F:
            inside = 2 * (head & 0x0F)
        elif head <= 0x9F:
            inside = head & 0x0F
        elif head in _COUNTED:
            width, each = _COUNTED[head]
            inside = each * int.from_bytes(frame[position : position + width], "big")
            position += width
        else:
            raise _refused("plain values and arrays", f"a value of type 0x{head:02x}")
        if position > length:
            raise _refused("as many bytes as it announces", f"{length}, with {position - length} missing")
        if inside is not None:
            values += inside
            if values > limits.values:
                raise _refused(f"at most {limits.values} values", f"{values} or more", do="send pictures as arrays")
            wanted.append(inside)
            if len(wanted) > limits.depth + 1:
                raise _refused(f"at most {limits.depth} containers in one another", "more", do="send a flat dictionary")
    if position != length:
        raise _refused("one value", f"{length - position} bytes behind it")


# ---------------------------------------------------------------- arrays


def _described(value: Any) -> Any:
    """Arrays and numpy's scalars as the dictionaries above."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in _SIZES or value.dtype.itemsize not in _SIZES[value.dtype.kind]:
            raise TypeError(f"an array of dtype {value.dtype}")
        if isinstance(value, np.ndarray):
            return {ARRAY: True, DATA: value.tobytes(), DTYPE: value.dtype.str, SHAPE: value.shape}
        return {SCALAR: True, DATA: value.item(), DTYPE: value.dtype.str}
    raise TypeError(f"a value of type {type(value).__name__}")


def array_of(
    data: bytes, kind: np.dtype, shape: Sequence[Any], limits: Limits, *, order: Literal["C", "F"] = "C"
) -> np.ndarray:
    """A read-only view of `data`. Raises WamError unless `shape` holds as many numbers of a plain `kind` as there are."""
    plain = kind.kind in _SIZES and kind.itemsize in _SIZES[kind.kind] and kind.subdtype is None
    sides = all(type(side) is int and 0 <= side <= limits.frame_bytes for side in shape) and len(shape) <= limits.axes
    whole = plain and sides and math.prod(shape) * kind.itemsize == len(data)
    if not whole or math.prod(max(side, 1) for side in shape) > limits.frame_bytes:
        raise _refused(
            f"arrays of numbers, at most {limits.axes} axes, as long as their shape",
            f"{str(kind)[:40]} of shape {str(shape)[:80]} in {len(data)} bytes",
            do="convert the array",
        )
    return np.frombuffer(data, kind).reshape(tuple(shape), order=order)


def _array(found: dict[Any, Any], limits: Limits) -> Any:
    """An array or scalar of its dictionary; any other dictionary as it is."""
    if ARRAY in found:
        data, shape = found.get(DATA), found.get(SHAPE)
        kind = _dtype(found.get(DTYPE))
        if not isinstance(data, bytes) or not isinstance(shape, list):
            raise _refused("arrays with bytes and a shape", f"{type(data).__name__} and {type(shape).__name__}")
        return array_of(data, kind, shape, limits)
    if SCALAR in found:
        number = found.get(DATA)
        kind = _dtype(found.get(DTYPE))
        if not isinstance(number, bool | int | float):
            raise _refused("scalars that are numbers", type(number).__name__)
        return kind.type(number)
    return found


def _dtype(name: object) -> np.dtype:
    """By a name that numpy need not be trusted with: only those of plain numbers are handed to it."""
    if not isinstance(name, str) or name not in _DTYPES:
        raise _refused("arrays of booleans, integers or floats", f"dtype {str(name)[:40]!r}", do="convert the array")
    return np.dtype(name)
