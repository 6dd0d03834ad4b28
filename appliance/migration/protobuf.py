"""As much of protobuf as etcd's buckets take. Pure; protobuf's own package is not loaded for a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct

NUMBER = Struct(">Q")
ALL_BITS = (1 << 64) - 1
Value = bytes | int


def bytes_field(field: int, data: bytes, *, always: bool = False) -> bytes:
    """Left out when it is empty, unless ``always``."""
    return bytes((field << 3 | 2,)) + varint(len(data)) + data if data or always else b""


def number_field(field: int, value: int) -> bytes:
    """Left out when it is 0; a negative one as two's complement."""
    return bytes((field << 3,)) + varint(value & ALL_BITS) if value else b""


def varint(value: int) -> bytes:
    """A number."""
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(field, value) as they stand. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        match tag & 7:
            case 0:
                yield tag >> 3, value
            case 2:
                if at + value > len(data):
                    raise ValueError(f"{value} bytes do not fit at {at}")
                yield tag >> 3, data[at : at + value]
                at += value
            case kind:
                raise ValueError(f"a field of kind {kind} at {at}")


def listed(found: Iterable[tuple[int, Value]]) -> dict[int, list[Value]]:
    """All values of each field."""
    lists: dict[int, list[Value]] = {}
    for field, value in found:
        lists.setdefault(field, []).append(value)
    return lists


def only_bytes(found: Mapping[int, Sequence[Value]], field: int) -> bytes:
    """The last value of a field of bytes; empty when it is not there. Raises ValueError."""
    value = found.get(field, (b"",))[-1]
    if not isinstance(value, bytes):
        raise ValueError(f"{value!r} should be bytes")
    return value


def whole(value: Value) -> int:
    """Raises ValueError for what is no number, or too large to be one of ours."""
    if not isinstance(value, int) or value >> 63:
        raise ValueError(f"{value!r} is no number of a revision or lease")
    return value


def signed(value: Value) -> int:
    """As an int64 stands there: ids of leases may be negative. Raises ValueError."""
    if not isinstance(value, int):
        raise ValueError(f"{value!r} should be a number")
    return value - (1 << 64) if value >> 63 else value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        octet = data[at]
        value |= (octet & 127) << shift
        at += 1
        if octet < 128:
            return value & ALL_BITS, at
        shift += 7
    raise ValueError(f"a number is cut off at {at}")
