"""What stands in etcd's buckets (mvcc/revision.go, kv.proto, lease.proto of etcd 3.4 and 3.5). Pure.

``key`` has a revision as key, an mvccpb.KeyValue as value; a ``t`` behind the revision says that the key was deleted.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from appliance.migration.protobuf import ALL_BITS, NUMBER, bytes_field, fields, number_field, signed, whole
from appliance.store import CORRUPT, NO_SPACE, Change

KEY, META, LEASE = b"key", b"meta", b"lease"
ALARM = b"alarm"
# All that etcd 3.4 and 3.5 make at a start. Those of membership stay empty: a restore makes them anew.
BUCKETS = (ALARM, b"auth", b"authRoles", b"authUsers", b"cluster", b"members", b"members_removed")
FINISHED_COMPACTION, SCHEDULED_COMPACTION = b"finishedCompactRev", b"scheduledCompactRev"
CONSISTENT_INDEX, TERM = b"consistent_index", b"term"
_REVISION = Struct(">QcQ")
_TOMBSTONE = b"t"
_ALARM_TYPES = {NO_SPACE: 1, CORRUPT: 2}
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
        return revision + _TOMBSTONE, bytes_field(1, change.key)
    numbers = (change.create_revision, change.revision, change.version)
    value = [bytes_field(1, change.key), *(number_field(field, number) for field, number in enumerate(numbers, 2))]
    return revision, b"".join((*value, bytes_field(5, change.value), number_field(6, change.lease)))


def decode_change(revision: bytes, data: bytes) -> Change:
    """The other way. Raises ValueError."""
    main, sub, deleted = decode_revision(revision)
    found: dict[int, bytes | int] = dict(fields(data))
    key, value = found.get(1, b""), found.get(5, b"")
    if not isinstance(key, bytes) or not isinstance(value, bytes) or not key:
        raise ValueError("it has no key")
    if deleted:
        return Change(main, sub, key, True)
    create, mod, version = (whole(found.get(field, 0)) for field in (2, 3, 4))
    if mod != main or not 0 < create <= mod or version < 1:
        raise ValueError(f"revision {mod}, created at {create}, version {version} stands at revision {main}")
    return Change(main, sub, key, False, value, create, version, signed(found.get(6, 0)))


def encode_lease(lease: LeaseGrant) -> tuple[bytes, bytes]:
    """(key, value) in the bucket of leases. What was left of it is not said: whoever restores grants it anew."""
    return NUMBER.pack(lease.id & ALL_BITS), number_field(1, lease.id) + number_field(2, lease.ttl)


def decode_lease(data: bytes) -> LeaseGrant:
    """The other way. Raises ValueError."""
    found = dict(fields(data))
    return LeaseGrant(signed(found.get(1, 0)), whole(found.get(2, 0)))


def fact_of(lease: LeaseGrant) -> tuple[bytes, bytes]:
    """Under which name our store keeps it, and as what: the same bytes."""
    key, value = encode_lease(lease)
    return LEASE_FACTS + key, value


def encode_alarm(kind: bytes, member_id: int) -> bytes:
    """A key in the bucket of alarms: one of the store's kinds, raised by this member."""
    return number_field(1, member_id) + number_field(2, _ALARM_TYPES[kind])


def decode_alarm(data: bytes) -> bytes | None:
    """Of which kind a key of that bucket is, whoever raised it. Raises ValueError."""
    number = dict(fields(data)).get(2)
    return next((kind for kind, known in _ALARM_TYPES.items() if known == number), None)
