"""JSON as the gateway of etcd 3.4 reads it (golang/protobuf's jsonpb), and its words for what it does not take.

Unknown fields are passed over, the first value of a body is taken and what is behind it left (a stream takes all).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

_DECODER = json.JSONDecoder(parse_float=lambda text: _Number(text), parse_int=lambda text: _Number(text))
_BLANK = " \t\r\n"
_BASE64 = re.compile(r"[A-Za-z0-9+/]")
_GO = {
    FieldDescriptor.CPPTYPE_INT32: "int32", FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT32: "uint32", FieldDescriptor.CPPTYPE_UINT64: "uint64",
    FieldDescriptor.CPPTYPE_BOOL: "bool", FieldDescriptor.CPPTYPE_STRING: "string",
}  # fmt: skip
_BOUNDS = {
    "int32": (-(1 << 31), 1 << 31),
    "int64": (-(1 << 63), 1 << 63),
    "uint32": (0, 1 << 32),
    "uint64": (0, 1 << 64),
}


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


class BadJsonError(ValueError):
    """The text is what the gateway answers."""


def messages_untrusted(body: bytes, kind: type[Message]) -> Iterator[Message]:
    """One after the other; none of an empty body. Raises BadJsonError where it stops being good."""
    text = body.decode("utf-8", "replace")
    at = _skip(text, 0)
    while at < len(text):
        try:
            value, end = _DECODER.raw_decode(text, at)
        except ValueError as exc:
            raise BadJsonError(_words(text, exc)) from exc
        except RecursionError as exc:
            raise BadJsonError("exceeded max depth") from exc
        message = kind()
        _fill(message, value)
        yield message
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _words(text: str, exc: ValueError) -> str:
    at = _skip(text, getattr(exc, "pos", 0))
    if at >= len(text) or "Unterminated" in str(exc):
        return "unexpected EOF"
    if "Expecting ',' delimiter" in str(exc):
        return f"invalid character '{text[at]}' after object key:value pair"
    if "Expecting ':' delimiter" in str(exc):
        return f"invalid character '{text[at]}' after object key"
    if "property name" in str(exc):
        return f"invalid character '{text[at]}' looking for beginning of object key string"
    for literal in ("null", "true", "false"):
        if text[at] == literal[0]:
            for seen, wanted in zip(text[at:], literal, strict=False):
                if seen != wanted:
                    return f"invalid character '{seen}' in literal {literal} (expecting '{wanted}')"
            return "unexpected EOF"
    return f"invalid character '{text[at]}' looking for beginning of value"


@cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """By the names of the .proto file, and by those of JSON."""
    return {name: field for field in descriptor.fields for name in (field.json_name, field.name)}


def _fill(message: Message, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise _no_go(value, "map[string]json.RawMessage")
    fields = _fields(message.DESCRIPTOR)
    for name, each in value.items():
        field = fields.get(name)
        if field is None or each is None:
            continue
        if not field.is_repeated:
            if field.message_type is not None:
                inner = getattr(message, field.name)
                inner.SetInParent()
                _fill(inner, each)
            else:
                setattr(message, field.name, _scalar(field, each))
            continue
        if not isinstance(each, list):
            raise _no_go(each, "[]json.RawMessage")
        listed = getattr(message, field.name)
        for item in each:
            if field.message_type is not None:
                _fill(listed.add(), item)
            else:
                listed.append(_scalar(field, item))


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None and not isinstance(value, _Number):
        parts = field.enum_type.full_name.split(".")
        enum = f"{parts[0]}.{'_'.join(parts[1:])}"
        if not isinstance(value, str):
            raise _no_go(value, enum)
        known = field.enum_type.values_by_name.get(value)
        if known is None:
            raise BadJsonError(f'unknown value "{value}" for enum {enum}')
        return known.number
    if field.type == FieldDescriptor.TYPE_BYTES:
        if isinstance(value, _Number) or not isinstance(value, str):
            raise _no_go(value, "[]uint8")
        return _bytes(value)
    go = "int32" if field.enum_type is not None else _GO[field.cpp_type]
    if go == "bool":
        if not isinstance(value, bool):
            raise _no_go(value, go)
        return value
    if go == "string":
        if isinstance(value, _Number) or not isinstance(value, str):
            raise _no_go(value, go)
        return value
    return _whole(value, go)


def _whole(value: Any, go: str) -> int:
    if not isinstance(value, str):  # a number is one, in quotes or not
        raise _no_go(value, go)
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)", value):
        if isinstance(value, _Number) or re.fullmatch(r"-?[0-9]+\.?[0-9eE+-]*", value):
            raise BadJsonError(f"json: cannot unmarshal number {value} into Go value of type {go}")
        raise BadJsonError(
            f"invalid character '{value[0]}' looking for beginning of value"
            if value
            else "unexpected end of JSON input"
        )
    low, high = _BOUNDS[go]
    if len(value) > 20 or not low <= int(value) < high:
        raise BadJsonError(f"json: cannot unmarshal number {value[:40]} into Go value of type {go}")
    return int(value)


def _bytes(text: str) -> bytes:
    text = text.replace("\r", "").replace("\n", "")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        stem = text.rstrip("=")
        at = next((n for n, letter in enumerate(stem) if not _BASE64.match(letter)), None)
        at = at if at is not None else len(stem) - len(stem) % 4
        raise BadJsonError(f"illegal base64 data at input byte {at}") from exc


def _no_go(value: Any, go: str) -> BadJsonError:
    match value:
        case _Number():
            what = "number"
        case str():
            what = "string"
        case bool():
            what = "bool"
        case list():
            what = "array"
        case _:
            what = "object"
    return BadJsonError(f"json: cannot unmarshal {what} into Go value of type {go}")
