"""Settings: a YAML file and `key=value` overrides become one checked instance of a dataclass.

The dataclass is the one place for names, types and defaults; files and overrides say only what differs. Types that may
appear in it: bool, int, float, str, Path, None, Any, Enum, Literal, unions, list, tuple, dict and other dataclasses,
nested freely.

    seed: 3                      # a YAML file; `extends` merges another file (or a list of them) first
    extends: base.yaml
    train: {steps: 500}

Rules of merging: extended files, the file and overrides merge key by key in this order; lists are replaced. A field
that they do not mention keeps its default; a dict that a file gives replaces the default dict, so that what was saved
is what is read. `null` removes an entry of a dict whose values cannot be null. Overrides reach into lists by index:
`streams.0.width=64`.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from wam.contracts import WamError, expected

T = TypeVar("T")


def load_settings(cls: type[T], path: Path | None, overrides: Sequence[str] = ()) -> T:
    """An instance of the dataclass `cls` from its defaults, the YAML at `path` (if any) and `key.path=value` overrides.

    Raises WamError for a missing or malformed file, an unknown key (naming the nearest known one), a value of the wrong
    type, and a required value that nothing gives.
    """
    given = {} if path is None else _read(Path(path), ())
    return _assemble(cls, _fill(cls, _defaults(cls), given), overrides)


def override(instance: T, overrides: Sequence[str]) -> T:
    """A copy of a dataclass instance with `key.path=value` overrides applied."""
    return _assemble(type(instance), to_plain(instance), overrides)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of the dataclass `cls` from a plain mapping merged over its defaults."""
    return _assemble(cls, _fill(cls, _defaults(cls), values), ())


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples, paths and enums as plain dicts, lists and strings that YAML and JSON hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value


def to_yaml(instance: Any) -> str:
    """The instance as YAML, every default written out; `load_settings` reads it back to an equal instance."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(instance)))


def save_settings(instance: Any, path: Path) -> None:
    """Write `to_yaml(instance)` to `path`, making the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_yaml(instance), encoding="utf-8")


def missing_file(path: Path, what: str) -> WamError:
    """The error for a file that is not there: names the files of its folder that read alike."""
    path = Path(path)
    folder = path.parent
    if not folder.is_dir():
        return expected(f"{what} {path}", got=f"no folder {folder}", do="check the path")
    names = sorted(child.name for child in folder.iterdir())
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    near = near or [name for name in names if Path(name).suffix == path.suffix][:5]
    hint = f"{folder} holds {', '.join(near)}" if near else f"{folder} holds no such file"
    return expected(f"{what} {path}", got="no such file", do=hint)


# ---------------------------------------------------------------- reading and merging


def _read(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """The YAML mapping at `path`, merged over the files that it extends."""
    path = path.expanduser()
    if path.resolve() in chain:
        names = " -> ".join(link.name for link in (*chain, path))
        raise expected("files that extend each other without a circle", got=names, do="remove one `extends`")
    if not path.is_file():
        raise missing_file(path, "a settings file")
    try:
        content = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise expected(f"YAML in {path}", got=reason, do="correct the file at that place") from error
    if not isinstance(content, DictConfig):
        raise expected(f"a mapping of keys in {path}", got="a list or a bare value", do="write `key: value` lines")
    values = _plain(content, resolve=False)
    parents = values.pop("extends", [])
    parents = [parents] if isinstance(parents, str) else parents
    layers = [_read(path.parent / parent, (*chain, path.resolve())) for parent in parents]
    return _plain(OmegaConf.merge(*layers, values), resolve=False)


def _assemble(cls: type[T], values: Mapping[str, Any], overrides: Sequence[str]) -> T:
    config = OmegaConf.create(dict(values))
    for text in overrides:
        key, sign, _ = text.partition("=")
        if not sign or not key.strip():
            raise expected("an override like `train.steps=100`", got=repr(text), do="write key=value without blanks")
        try:
            value = _plain(OmegaConf.from_dotlist([f"value={text[len(key) + 1 :]}"]), resolve=False)["value"]
            OmegaConf.update(config, key.strip(), value, merge=True, force_add=True)
        except (YAMLError, OmegaConfBaseException, TypeError, ValueError, IndexError) as error:
            raise expected(
                f"an override that fits `{key}`", got=repr(text), do=f"check the key and its value ({_line(error)})"
            ) from error
    try:
        resolved = _plain(config, resolve=True)
    except OmegaConfBaseException as error:
        raise expected("interpolations that resolve", got=_line(error), do="check the `${...}` in the file") from error
    return _convert(cls, resolved, "", cls)


def _plain(config: Any, *, resolve: bool) -> dict[str, Any]:
    return typing.cast("dict[str, Any]", OmegaConf.to_container(config, resolve=resolve))


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _defaults(cls: type) -> dict[str, Any]:
    """The plain values of every field that has a default; nested dataclasses without one give theirs."""
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        if field.default is not dataclasses.MISSING:
            found[field.name] = to_plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = to_plain(field.default_factory())
        elif dataclasses.is_dataclass(hints[field.name]):
            found[field.name] = _defaults(typing.cast(type, hints[field.name]))
    return found


def _fill(kind: Any, default: Any, given: Any) -> Any:
    """`given` with the fields that it lacks taken from `default`, through nested dataclasses but not through dicts."""
    kind = next((a for a in typing.get_args(kind) if dataclasses.is_dataclass(a)), kind)
    if not (dataclasses.is_dataclass(kind) and isinstance(default, Mapping) and isinstance(given, Mapping)):
        return given
    hints = typing.get_type_hints(kind)
    filled = {key: _fill(hints.get(str(key)), default.get(key), value) for key, value in given.items()}
    return {**default, **filled}


# ---------------------------------------------------------------- checking against the types


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
        raise expected(f"{where} with values that agree", got=_line(error), do="correct these values") from error


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
