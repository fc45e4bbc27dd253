"""Dataclass trees as plain JSON values, and back."""

import dataclasses
import json
import pathlib
import types
import typing
from typing import Any

from train import config


def to_json(value: Any) -> Any:
    """A dataclass tree as JSON values; paths become strings, tuples lists."""
    return json.loads(json.dumps(dataclasses.asdict(value), default=str))


def from_json(kind: Any, data: Any) -> Any:
    """The inverse of `to_json` for dataclass `kind`; an unknown field is an error, and a missing one without a default.

    A field with a default was not there yet when the file was written: then it had no other value.
    """
    if not dataclasses.is_dataclass(kind):
        return _leaf(kind, data)
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    needed = {field.name for field in dataclasses.fields(kind) if _required(field)}
    if set(data) - names or needed - set(data):
        raise config.ConfigError(
            f"{kind.__name__}: unknown fields {sorted(set(data) - names)}, missing fields "
            f"{sorted(needed - set(data))}; the file was written by another version of this code"
        )
    return kind(**{name: from_json(hints[name], data[name]) for name in names & set(data)})


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _leaf(kind: Any, data: Any) -> Any:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        if data is not None and dataclasses.is_dataclass(option):
            return from_json(option, data)
        if option is pathlib.Path:
            return pathlib.Path(data)
    return tuple(data) if isinstance(data, list) else data


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names with both values, wherever two JSON trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f"{prefix}.{name}".lstrip("."), old.get(name), new.get(name)) for name in sorted(set(old) | set(new))]
        return [line for name, before, after in pairs for line in differences(before, after, name)]
    return [] if old == new else [f"{prefix}: {old!r} -> {new!r}"]
