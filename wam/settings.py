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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from wam.contracts import WamError, expected
from wam.files import write_bytes
from wam.typed import first_line, typed

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
    """Write `to_yaml(instance)` to `path`, whole or not at all, making the folder."""
    write_bytes(Path(path), to_yaml(instance).encode())


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
                f"an override that fits `{key}`",
                got=repr(text),
                do=f"check the key and its value ({first_line(error)})",
            ) from error
    try:
        resolved = _plain(config, resolve=True)
    except OmegaConfBaseException as error:
        raise expected(
            "interpolations that resolve", got=first_line(error), do="check the `${...}` in the file"
        ) from error
    return typed(cls, resolved)


def _plain(config: Any, *, resolve: bool) -> dict[str, Any]:
    return typing.cast("dict[str, Any]", OmegaConf.to_container(config, resolve=resolve))


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
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next((a for a in typing.get_args(kind) if dataclasses.is_dataclass(a)), kind)
    if not (dataclasses.is_dataclass(kind) and isinstance(default, Mapping) and isinstance(given, Mapping)):
        return given
    hints = typing.get_type_hints(kind)
    filled = {key: _fill(hints.get(str(key)), default.get(key), value) for key, value in given.items()}
    return {**default, **filled}
