"""Frozen configuration dataclasses: checked when they are made, written to JSON whole, and read back without guessing."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from landmarklabel.errors import ConfigurationError, UnknownSetting

C = TypeVar("C")


def number(default: float, low: float, high: float = math.inf) -> Any:
    """A dataclass field for a number from ``low`` to ``high``, both included; see ``Configuration``."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def numbers(default: tuple[float, ...], low: float, high: float = math.inf) -> Any:
    """A dataclass field for a tuple of such numbers."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


class Configuration:
    """Base of the configuration dataclasses: every field made with ``number`` or ``numbers`` is checked against its range.

    Raises:
        ConfigurationError: a value that is no number, or out of range; names the field, the value and the range.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            if "range" not in field.metadata:
                continue
            low, high = field.metadata["range"]
            value = getattr(self, field.name)
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, bool) or not isinstance(one, (int, float)) or not (low <= one <= high and one < math.inf):
                    where = f"{type(self).__name__}.{field.name}"
                    raise ConfigurationError(f"{where} is {one!r}, it must be a number from {low:g} to {high:g}")


def to_json(value: Any) -> Any:
    """A configuration, or anything in one, as what ``json`` can write: dataclasses and mappings become objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(key): to_json(one) for key, one in value.items()}
    return [to_json(one) for one in value] if isinstance(value, (tuple, list)) else value


def from_json(kind: type[C], content: object) -> C:
    """The configuration that ``to_json`` wrote; fields that are missing take their defaults.

    Raises:
        ConfigurationError: an unknown field, a missing one without default, or a value of the wrong kind.
    """
    return _read(kind, content, kind.__name__)  # type: ignore[no-any-return]  # of the kind that was asked for


def _read(kind: Any, content: Any, where: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _read_first_of(parts, content, where)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, content, where)
    if origin is tuple and isinstance(content, (list, tuple)):
        kinds = parts[:1] * len(content) if len(parts) == 2 and parts[1] is Ellipsis else parts
        if len(kinds) == len(content):
            return tuple(_read(k, one, where) for k, one in zip(kinds, content, strict=True))
    elif origin is not None and isinstance(content, Mapping):
        return {_read_key(parts[0], key, where): _read(parts[1], one, f"{where}.{key}") for key, one in content.items()}
    elif kind is float and isinstance(content, (int, float)) and not isinstance(content, bool):
        return float(content)
    elif isinstance(kind, type) and isinstance(content, kind) and (kind is bool or not isinstance(content, bool)):
        return content
    raise ConfigurationError(f"{where} is {str(content)[:40]!r}, which is not a {getattr(kind, '__name__', kind)}")


def _read_key(kind: type[Any], key: Any, where: str) -> Any:
    """A key, which JSON writes as a text."""
    try:
        return kind(key)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{where} has the key {str(key)[:40]!r}, which is not a {kind.__name__}") from None


def _read_first_of(kinds: tuple[Any, ...], content: Any, where: str) -> Any:
    """The first of several kinds that fits."""
    if content is None and type(None) in kinds:
        return None
    for kind in (k for k in kinds if k is not type(None)):
        try:
            return _read(kind, content, where)
        except ConfigurationError as error:
            fault = error
    raise fault


def _read_dataclass(kind: Any, content: Any, where: str) -> Any:
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"{where} is {str(content)[:40]!r}, which is not an object")
    hints, fields = get_type_hints(kind), {f.name: f for f in dataclasses.fields(kind) if f.init}
    if unknown := sorted(set(content) - set(fields)):
        raise UnknownSetting(f"{where} has no field {unknown[0]!r}")
    values = {name: _read(hints[name], one, f"{where}.{name}") for name, one in content.items()}
    try:
        return kind(**values)
    except TypeError:
        raise ConfigurationError(f"{where} lacks a field") from None
