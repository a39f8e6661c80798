"""Plain values checked against the types of a dataclass, with errors that name the dotted path and the nearest key."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from wam.contracts import WamError, expected

T = TypeVar("T")


def typed(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of the dataclass `cls` from plain values; fields that they lack take their defaults.

    Raises WamError for an unknown key, a value of the wrong type and a missing required value.
    """
    return _convert(cls, values, "", cls)


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _convert(kind: Any, value: Any, path: str, root: type) -> Any:
    """`value` as an instance of the type `kind`; WamError names the dotted `path` where it does not fit."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, path, root)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise expected(f"`{path}` to be one of {_names(arguments)}", got=repr(value), do=_nearest(value, arguments))
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(typing.cast(type, kind), value, path, root)
    base = origin or kind
    if isinstance(base, type) and issubclass(base, enum.Enum):
        if isinstance(value, str) and value in base.__members__:
            return base[value]
        names = tuple(base.__members__)
        raise expected(f"`{path}` to be one of {_names(names)}", got=repr(value), do=_nearest(value, names))
    if isinstance(base, type) and base is not str and issubclass(base, Mapping):
        return _convert_mapping(arguments, value, path, root)
    if isinstance(base, type) and base is not str and issubclass(base, Sequence):
        return _convert_sequence(base, arguments, value, path, root)
    return _convert_scalar(base, value, path)


def _convert_scalar(kind: Any, value: Any, path: str) -> Any:
    if kind is type(None) and value is None:
        return None
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    do = "put it in quotes" if kind is str and value is not None else "correct the value"
    raise expected(f"`{path}` as {_describe(kind)}", got=_show(value), do=do)


def _convert_union(arguments: Sequence[Any], value: Any, path: str, root: type) -> Any:
    """The member that fits: exact scalars first, so that `int | float` keeps 3 an int."""
    if value is None and type(None) in arguments:
        return None
    members = [a for a in arguments if a is not type(None)]
    members.sort(key=lambda a: a is not type(value))
    errors: list[WamError] = []
    for member in members:
        try:
            return _convert(member, value, path, root)
        except WamError as error:
            errors.append(error)
    if len(errors) == 1 or isinstance(value, Mapping):
        raise errors[0]
    kinds = " or ".join(_describe(a) for a in arguments)
    raise expected(f"`{path}` as {kinds}", got=_show(value), do="correct the value")


def _convert_dataclass(cls: type, value: Any, path: str, root: type) -> Any:
    if not isinstance(value, Mapping):
        keys = ", ".join(f.name for f in dataclasses.fields(cls) if f.init)
        raise expected(
            f"`{path}` as a mapping with keys {keys}", got=_show(value), do="write `key: value` lines under it"
        )
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in value:
        if key not in fields:
            raise _unknown(key, path, fields, root)
    hints = typing.get_type_hints(cls)
    given: dict[str, Any] = {}
    for name, field in fields.items():
        here = f"{path}.{name}" if path else name
        if name in value and not (isinstance(value[name], str) and value[name] == "???"):
            given[name] = _convert(hints[name], value[name], here, root)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise expected(f"a value for `{here}`", got="none", do=f"set it in the file or with `{here}=...`")
    try:
        return cls(**given)
    except (ValueError, TypeError) as error:
        where = f"`{path}`" if path else cls.__name__
        raise expected(f"{where} with values that agree", got=first_line(error), do="correct these values") from error


def _convert_mapping(arguments: Sequence[Any], value: Any, path: str, root: type) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise expected(f"`{path}` as a mapping", got=_show(value), do="write `key: value` lines under it")
    key_kind, item_kind = arguments or (Any, Any)
    nullable = item_kind is Any or type(None) in typing.get_args(item_kind)
    return {
        _convert(key_kind, key, f"{path}.{key}", root): _convert(item_kind, item, f"{path}.{key}", root)
        for key, item in value.items()
        if item is not None or nullable
    }


def _convert_sequence(base: type, arguments: Sequence[Any], value: Any, path: str, root: type) -> Any:
    if not isinstance(value, list | tuple):
        raise expected(f"`{path}` as a list", got=_show(value), do="write it as [first, second]")
    kinds: Iterator[Any]
    if base is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(value):
            raise expected(f"`{path}` with {len(arguments)} values", got=f"{len(value)}", do="give each of them")
        kinds = iter(arguments)
    else:
        kinds = iter([arguments[0] if arguments else Any] * len(value))
    items = [_convert(kind, item, f"{path}.{i}", root) for i, (kind, item) in enumerate(zip(kinds, value, strict=True))]
    return items if base is list else tuple(items)


# ---------------------------------------------------------------- sentences


def _unknown(key: object, path: str, fields: Mapping[str, Any], root: type) -> WamError:
    """The error for an unknown key: the nearest among its siblings, else among all dotted paths of the root."""
    full = f"{path}.{key}" if path else str(key)
    siblings = {name: f"{path}.{name}" if path else name for name in fields}
    everywhere = list(_paths(root, ""))
    near = [known for known in everywhere if known.rpartition(".")[2] == str(key) and "*" not in known]
    near = near or [siblings[name] for name in difflib.get_close_matches(str(key), siblings, n=1, cutoff=0.6)]
    near = near or difflib.get_close_matches(full, everywhere, n=1, cutoff=0.6)
    where = f" in `{path}`" if path else ""
    do = f"did you mean `{near[0]}`?" if near else "remove or rename it"
    return expected(f"one of the keys {', '.join(fields)}{where}", got=f"`{full}`", do=do)


def _paths(cls: type, prefix: str, above: tuple[type, ...] = ()) -> Iterator[str]:
    """Every dotted path that `cls` knows; `*` stands for an index or a key of a dict."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        path = f"{prefix}{field.name}"
        yield path
        for nested, dots in _nested(hints[field.name]):
            if nested not in above:
                yield from _paths(nested, f"{path}{dots}.", (*above, cls))


def _nested(kind: Any) -> Iterator[tuple[type, str]]:
    if dataclasses.is_dataclass(kind):
        yield typing.cast(type, kind), ""
        return
    inside = "" if typing.get_origin(kind) in (Union, types.UnionType) else ".*"
    for argument in typing.get_args(kind):
        for nested, dots in _nested(argument):
            yield nested, inside + dots


def _describe(kind: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    if kind is type(None):
        return "null"
    return words.get(kind) or (getattr(kind, "__name__", None) or str(kind))


def _show(value: Any) -> str:
    return f"{value!r} ({'null' if value is None else type(value).__name__})"


def _names(choices: Sequence[Any]) -> str:
    return ", ".join(str(choice) for choice in choices)


def _nearest(value: Any, choices: Sequence[Any]) -> str:
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    return f"did you mean {near[0]!r}?" if near else "name one of them"
