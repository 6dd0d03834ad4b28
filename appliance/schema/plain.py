"""The way back: a section as plain data with durations and sizes spelled out, and as TOML. Pure."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from appliance.errors import InputError
from appliance.schema.conversion import section_fields
from appliance.schema.findings import BARE_KEY
from appliance.schema.quantities import Quantity, format_duration, format_size


def to_plain(section: object) -> dict[str, Any]:
    """A dict as TOML would hold it: what is None is left out, a duration reads "10m", a size "16M"."""
    plain = {}
    kind: Any = type(section)
    for key, (name, hint, _) in section_fields(kind).items():
        value = getattr(section, name)
        if value is not None:
            plain[key] = _plain(value, hint)
    return plain


def to_toml(data: Mapping[str, Any]) -> str:
    """The same as text that ``read`` takes; what is None is left out. Raises InputError for None in a list."""
    lines: list[str] = []
    _write_table(data, (), lines)
    return "\n".join(lines).strip("\n") + "\n"


def _plain(value: Any, hint: Any) -> Any:
    kind = get_origin(hint)
    if kind is Annotated:
        inner, *marks = get_args(hint)
        mark = next((one for one in marks if isinstance(one, Quantity)), None)
        if mark is None:
            return _plain(value, inner)
        return format_size(value) if mark.kind == "size" else format_duration(value)
    if kind in (Union, UnionType):
        for choice in get_args(hint):
            origin = get_origin(choice)
            if (origin is tuple and isinstance(value, tuple)) or origin is Annotated:
                return _plain(value, choice)
    if isinstance(value, tuple):
        inner = (get_args(hint) or (Any,))[0]
        return [_plain(one, inner) for one in value]
    if isinstance(value, Mapping):
        inner = (get_args(hint) or (Any, Any))[1]
        return {key: _plain(one, inner) for key, one in value.items()}
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    return value


def _write_table(data: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    tables: list[tuple[str, Any]] = []
    for key, value in data.items():
        if isinstance(value, Mapping) or _is_tables(value):
            tables.append((key, value))
        elif value is not None:
            lines.append(f"{_key((key,))} = {_value(value)}")
    for key, value in tables:
        inner = (*path, key)
        if isinstance(value, Mapping):
            lines += ["", f"[{_key(inner)}]"]
            _write_table(value, inner, lines)
        else:
            for one in value:
                lines += ["", f"[[{_key(inner)}]]"]
                _write_table(one, inner, lines)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float() if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        case int() | float():
            return repr(value)
        case list():
            return "[" + ", ".join(_value(one) for one in value) + "]"
        case Mapping():
            inner = (f"{_key((key,))} = {_value(one)}" for key, one in value.items() if one is not None)
            return "{" + ", ".join(inner) + "}"
        case None:
            raise InputError("cannot write a list with null in it: TOML has no word for that")
        case _:
            return _string(str(value))


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # which TOML wants escaped, and JSON not


def _key(path: tuple[str, ...]) -> str:
    return ".".join(part if BARE_KEY.fullmatch(part) else _string(part) for part in path)
