"""What stands in etcd's buckets (mvcc/revision.go, kv.proto, lease.proto of etcd 3.4 and 3.5). Pure.

``key`` has a revision as key, an mvccpb.KeyValue as value; a ``t`` behind the revision says that the key was deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from appliance.store import Change

KEY, META, LEASE = b"key", b"meta", b"lease"
# All that etcd 3.4 and 3.5 make at a start. Those of membership stay empty: a restore makes them anew.
EMPTY_BUCKETS = (b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster", b"members", b"members_removed")
FINISHED_COMPACTION, SCHEDULED_COMPACTION = b"finishedCompactRev", b"scheduledCompactRev"
AUTH, AUTH_ENABLED = b"auth", b"authEnabled"
CONSISTENT_INDEX, TERM = b"consistent_index", b"term"
NUMBER = Struct(">Q")
_REVISION = Struct(">QcQ")
_TOMBSTONE = b"t"
LEASE_FACTS = b"lease/"  # in our own store: names begin so


class LeaseGrant(NamedTuple):
    """A lease as it was granted, seconds."""

    id: int
    ttl: int


def encode_revision(main: int, sub: int = 0) -> bytes:
    """17 bytes."""
    return _REVISION.pack(main, b"_", sub)


def decode_revision(data: bytes) -> tuple[int, int, bool]:
    """(main, sub, whether it is a deletion). Raises ValueError."""
    if len(data) not in (_REVISION.size, _REVISION.size + 1) or data[8:9] != b"_" or data[17:] not in (b"", _TOMBSTONE):
        raise ValueError(f"{data!r} is no revision")
    main, _, sub = _REVISION.unpack_from(data)
    return main, sub, len(data) > _REVISION.size


def encode_change(change: Change) -> tuple[bytes, bytes]:
    """(key, value) in the bucket of keys."""
    revision = _REVISION.pack(change.revision, b"_", change.sub)
    if change.deleted:
        return revision + _TOMBSTONE, _bytes(1, change.key)
    numbers = (change.create_revision, change.revision, change.version)
    value = [_bytes(1, change.key), *(_number(field, number) for field, number in enumerate(numbers, 2))]
    return revision, b"".join((*value, _bytes(5, change.value), _number(6, change.lease)))


def decode_change(revision: bytes, data: bytes) -> Change:
    """The other way. Raises ValueError."""
    main, sub, deleted = decode_revision(revision)
    found: dict[int, bytes | int] = dict(_fields(data))
    key, value = found.get(1, b""), found.get(5, b"")
    if not isinstance(key, bytes) or not isinstance(value, bytes) or not key:
        raise ValueError("it has no key")
    if deleted:
        return Change(main, sub, key, True)
    create, mod, version, lease = (_whole(found.get(field, 0)) for field in (2, 3, 4, 6))
    if mod != main or not 0 < create <= mod or version < 1:
        raise ValueError(f"revision {mod}, created at {create}, version {version} stands at revision {main}")
    return Change(main, sub, key, False, value, create, version, lease)


def encode_lease(lease: LeaseGrant) -> tuple[bytes, bytes]:
    """(key, value) in the bucket of leases. What was left of it is not said: whoever restores grants it anew."""
    return NUMBER.pack(lease.id), _number(1, lease.id) + _number(2, lease.ttl)


def decode_lease(data: bytes) -> LeaseGrant:
    """The other way. Raises ValueError."""
    found = dict(_fields(data))
    return LeaseGrant(_whole(found.get(1, 0)), _whole(found.get(2, 0)))


def fact_of(lease: LeaseGrant) -> tuple[bytes, bytes]:
    """Under which name our store keeps it, and as what: the same bytes."""
    key, value = encode_lease(lease)
    return LEASE_FACTS + key, value


def _whole(value: bytes | int) -> int:
    if not isinstance(value, int) or value >> 63:
        raise ValueError(f"{value!r} is no number of a revision or lease")
    return value


def _bytes(field: int, data: bytes) -> bytes:
    return bytes((field << 3 | 2,)) + _varint(len(data)) + data if data else b""


def _number(field: int, value: int) -> bytes:
    return bytes((field << 3,)) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
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


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        octet = data[at]
        value |= (octet & 127) << shift
        at += 1
        if octet < 128:
            return value & (1 << 64) - 1, at
        shift += 7
    raise ValueError(f"a number is cut off at {at}")
