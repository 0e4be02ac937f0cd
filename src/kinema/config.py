"""Configurations: frozen dataclasses, read strictly from TOML files and command-line overrides.

A file contains only differences: `base = "dit.toml"` names the file in the same folder that it extends.
A dataclass with `from_table` and `to_table` has a table of another form than its fields.
"""

import dataclasses
import functools
import math
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from kinema.errors import ConfigError
from kinema.registry import unknown

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Option:
    """What `Annotated` states about a field that a user sets: its help text, and for the command line the
    name of its value and of its flag (None: the field's name)."""

    help: str
    metavar: str | None = None
    limits: tuple[float, float] | None = None
    """Smallest and largest value."""
    flag: str | None = None


@functools.cache
def options_of(cls: type) -> dict[str, tuple[Any, Option]]:
    """The type, without None, and the `Option` of every field of a dataclass that has one."""
    found = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if get_origin(hint) is Annotated:
            kind, option = get_args(hint)
            is_optional = type(None) in get_args(kind)
            found[name] = (get_args(kind)[0] if is_optional else kind, option)
    return found


def read_toml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a TOML file, merged over those of the file that `base` names. Raises `ConfigError` naming
    the file.

    `above` are the files that extend this one; they detect a cycle.
    """
    if path.resolve() in above:
        raise ConfigError(f"{path}: base leads back to the file itself")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such recipe: {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    base = tables.pop("base", None)
    if base is None:
        return tables
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be the name of a file, not {base!r}")
    return merge(read_toml(path.parent / base, (*above, path.resolve())), tables)


def merge(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`under` with the values of `over` in place of its own; nested tables are merged."""
    result = dict(under)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def override(tables: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`tables` after assignments such as `optimizer.lr=3e-4`.

    The value is TOML; a bare word is a string. Raises `ConfigError`.
    """
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise ConfigError(
                f"'{assignment}' is not an assignment: write name=value, e.g. optimizer.lr=3e-4"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        for part in reversed(name.strip().split(".")):
            value = {part: value}
        tables = merge(tables, value)
    return tables


def from_dict(cls: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """An instance of the dataclass `cls`.

    Raises `ConfigError` for an unknown key (naming the nearest), a wrong type or a missing value; `where` is
    the table in messages.
    """
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(unknown(f"key in [{where}]" if where else "key", key, fields))
    arguments = {
        key: _typed(hints[key], value, f"{where}.{key}" if where else key) for key, value in values.items()
    }
    needed = dataclasses.MISSING
    missing = [
        n
        for n, f in fields.items()
        if n not in arguments and f.default is needed and f.default_factory is needed
    ]
    if missing:
        raise ConfigError(f"{where or 'configuration'} lacks {', '.join(missing)}")
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(f"[{where}] {error}" if where else str(error)) from None


def check_range(config: Any, names: Sequence[str], low: float, high: float = math.inf) -> None:
    """Raise `ConfigError` for a field of `config`, one of `names`, that is not in `low` to `high`."""
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:
            limits = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            raise ConfigError(f"{name} = {value} is out of range: use {limits}")


def load(cls: type[C], path: Path | None = None, assignments: Sequence[str] = ()) -> C:
    """An instance of `cls` from a TOML file and overrides. Raises `ConfigError`."""
    return from_dict(cls, override(read_toml(path) if path else {}, assignments))


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain tables without None: `from_dict(type(config), to_dict(config)) == config`."""

    def plain(value: Any) -> Any:
        if hasattr(value, "to_table"):
            return plain(value.to_table())
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {
                f.name: plain(v)
                for f in dataclasses.fields(value)
                if f.init and (v := getattr(value, f.name)) is not None
            }
        if isinstance(value, (tuple, list)):
            return [plain(item) for item in value]
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return value

    result = plain(config)
    assert isinstance(result, dict), "a configuration is a dataclass"
    return result


def _typed(kind: Any, value: Any, where: str) -> Any:
    """`value` converted to the annotated type `kind`.

    Raises `ConfigError` naming the key and the expected type.
    """
    origin, options = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        return _choice(options, value, where)
    if origin in (Union, types.UnionType):
        return _first_fitting(options, value, where)
    if dataclasses.is_dataclass(kind):
        if isinstance(value, kind):  # type: ignore[arg-type]
            return value
        if isinstance(value, Mapping):
            read = getattr(kind, "from_table", functools.partial(from_dict, kind))  # type: ignore[arg-type]
            return read(value, where)
    elif origin is tuple and isinstance(value, (list, tuple)):
        return _tuple(options, value, where)
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        key_kind, value_kind = options
        return {_typed(key_kind, k, where): _typed(value_kind, v, f"{where}.{k}") for k, v in value.items()}
    elif kind in SCALARS:
        accepted, convert = SCALARS[kind]
        if isinstance(value, accepted) and not isinstance(value, bool):
            return convert(value)
    elif isinstance(kind, type) and isinstance(value, kind):
        return value

    name = getattr(kind, "__name__", None) if origin is None else str(kind)
    raise ConfigError(f"{where} = {value!r} is not of type {name}")


SCALARS: Mapping[Any, tuple[tuple[type, ...], Callable[[Any], Any]]] = {
    float: ((int, float), float),
    int: ((int,), lambda value: value),
    Path: ((str, Path), Path),
}
"""For types that accept values of other types: the accepted types and the conversion. A bool is no number."""


def _choice(options: Sequence[Any], value: Any, where: str) -> Any:
    """`value`, if it is one of `options`."""
    if value in options:
        return value
    raise ConfigError(f"{where} = {value!r} is not one of {', '.join(map(repr, options))}")


def _first_fitting(options: Sequence[Any], value: Any, where: str) -> Any:
    """`value` converted to the first type of a union that accepts it."""
    if value is None and type(None) in options:
        return None

    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _typed(option, value, where)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _tuple(options: Sequence[Any], values: Sequence[Any], where: str) -> tuple[Any, ...]:
    """The items of `values` converted to the types of a tuple annotation."""
    if len(options) == 2 and options[1] is Ellipsis:
        options = (options[0],) * len(values)
    if len(options) != len(values):
        raise ConfigError(f"{where} needs {len(options)} values, not {len(values)}")
    return tuple(
        _typed(option, item, f"{where}[{i}]") for i, (option, item) in enumerate(zip(options, values))
    )
