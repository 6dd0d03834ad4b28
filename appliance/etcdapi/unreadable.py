"""What is wrong with a message that cannot be read, in the words of an etcd's codec. Pure."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_EOF = "unexpected EOF"
_OVERFLOW = "proto: integer overflow"
_FIXED = {1: 8, 5: 4}  # bytes by wire type
_VARINT_MAX = 10  # bytes
_KINDS = {
    FieldDescriptor.TYPE_STRING: 2, FieldDescriptor.TYPE_BYTES: 2, FieldDescriptor.TYPE_MESSAGE: 2,
    FieldDescriptor.TYPE_DOUBLE: 1, FieldDescriptor.TYPE_FIXED64: 1, FieldDescriptor.TYPE_SFIXED64: 1,
    FieldDescriptor.TYPE_FLOAT: 5, FieldDescriptor.TYPE_FIXED32: 5, FieldDescriptor.TYPE_SFIXED32: 5,
}  # fmt: skip


class _WrongError(Exception):
    """Says it."""


def why_unreadable(kind: type[Message], data: bytes) -> str:
    """For ``data`` that the parser of ``kind`` refused."""
    try:
        _look(kind, data)
    except _WrongError as wrong:
        return str(wrong)
    return _EOF  # it lies deeper


def _look(kind: type[Message], data: bytes) -> None:
    fields = kind.DESCRIPTOR.fields_by_number
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 4:
            raise _WrongError(f"proto: {kind.DESCRIPTOR.name}: wiretype end group for non-group")
        if not number:
            raise _WrongError(f"proto: {kind.DESCRIPTOR.name}: illegal tag {number} (wire type {wire})")
        field = fields.get(number)
        if field is not None and wire != _KINDS.get(field.type, 0) and not (field.is_repeated and wire == 2):
            name = "".join(part[:1].upper() + part[1:] for part in field.name.split("_"))
            raise _WrongError(f"proto: wrong wireType = {wire} for field {name}")
        if wire == 0:
            _, at = _varint(data, at)
        elif wire == 2:
            size, at = _varint(data, at)
            at += size
        elif wire in _FIXED:
            at += _FIXED[wire]
        else:
            raise _WrongError(f"proto: illegal wireType {wire}")
        if at > len(data):
            raise _WrongError(_EOF)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_VARINT_MAX):
        if at >= len(data):
            raise _WrongError(_EOF)
        value |= (data[at] & 127) << 7 * place
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise _WrongError(_OVERFLOW)
