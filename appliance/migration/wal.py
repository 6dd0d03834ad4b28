"""An etcd's write-ahead log, as much as tells whether its database already has all of it (wal/walpb, raft.proto). Pure.

The database is written a little later than the log. Whoever takes over the database alone must know that nothing which
was acknowledged stands in the log only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from struct import Struct

from appliance.migration.protobuf import fields, signed, whole

_LENGTH = Struct("<Q")
_ENTRY, _STATE = 2, 3  # types of records
_NORMAL = 0  # type of an entry; others change the members
# What the v3 database does not keep: requests of v2 (how a member publishes its name, for one), bare or wrapped.
_METHODS_OF_V2 = {b"GET", b"QGET", b"HEAD", b"POST", b"PUT", b"DELETE", b"SYNC"}
_WRAPPED_V2 = {1, 2}  # the fields of an InternalRaftRequest then: an id, and it
_LEASE_GRANT, _LEASE_REVOKE = 8, 9
_FORGOTTEN = {100, 7, 11, 1300, 1301, 1302}  # a header, compaction, lease checkpoints; 3.5: version, name of a member
_Entry = tuple[int, bytes]  # kind, data


def is_ahead(files: Iterable[bytes], index: int, leases: Collection[int]) -> bool:
    """Whether an entry behind ``index`` was committed of which the database, with these leases, does not know.

    The database notes the index with each change of a key only. Raises ValueError.
    """
    entries: dict[int, _Entry] = {}
    committed = 0
    for data in files:
        for kind, record in _records(data):
            found = dict(fields(record))
            if kind == _STATE:
                committed = whole(found.get(3, 0))
            elif kind == _ENTRY:
                content = found.get(4, b"")
                entries[whole(found.get(3, 0))] = (
                    whole(found.get(1, 0)), content if isinstance(content, bytes) else b""
                )  # fmt: skip
    granted: dict[int, bool] = {}
    for at in sorted(entries):
        if index < at <= committed and _changes(entries[at], granted):
            return True
    return any((lease in leases) != there for lease, there in granted.items())


def _changes(entry: _Entry, granted: dict[int, bool]) -> bool:
    """Whether it does more than what ``granted`` takes note of, or what may as well be forgotten."""
    kind, data = entry
    if kind != _NORMAL:
        return False
    found = dict(fields(data))
    if found.get(2) in _METHODS_OF_V2:
        return False
    for field in found.keys() - _WRAPPED_V2 - _FORGOTTEN:
        request = found[field]
        if field not in (_LEASE_GRANT, _LEASE_REVOKE) or not isinstance(request, bytes):
            return True
        granted[signed(dict(fields(request)).get(2 if field == _LEASE_GRANT else 1, 0))] = field == _LEASE_GRANT
    return False


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, content). It ends with room made ahead, or with a torn record."""
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        size, padding = length & ((1 << 56) - 1), (length >> 56) & 7 if length >> 63 else 0
        at += _LENGTH.size
        if not length or at + size + padding > len(data):
            return
        found = dict(fields(data[at : at + size]))
        content = found.get(3, b"")
        yield whole(found.get(1, 0)), content if isinstance(content, bytes) else b""
        at += size + padding
