"""The database that etcd would have, from the store's changes as they come. Pure; memory: some pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from appliance.bolt import META_PAGES, PAGE_SIZE, Writer
from appliance.migration.auth_layout import BOOK_FACT, buckets_of
from appliance.migration.etcd_layout import (
    ALARM,
    BUCKETS,
    CONSISTENT_INDEX,
    FINISHED_COMPACTION,
    KEY,
    LEASE,
    META,
    SCHEDULED_COMPACTION,
    TERM,
    LeaseGrant,
    encode_alarm,
    encode_change,
    encode_lease,
    encode_revision,
)  # fmt: skip
from appliance.migration.protobuf import NUMBER
from appliance.store import CORRUPT, NO_SPACE, Change

DATABASE_BEGIN = META_PAGES * PAGE_SIZE  # where in the file the first bytes belong that ``append`` is given


class Database:
    """``append`` gets the file from byte ``DATABASE_BEGIN`` on; ``finish`` returns what is before."""

    def __init__(self, append: Callable[[bytes], None]) -> None:
        self._writer = Writer(append)
        self._keys = self._writer.tree()

    @property
    def size(self) -> int:
        """Of the file."""
        return self._writer.size

    def add(self, changes: Iterable[Change]) -> None:
        """In the order of revisions."""
        put = self._keys.put
        for change in changes:
            put(*encode_change(change))

    def finish(
        self, compacted_revision: int, leases: Iterable[LeaseGrant], facts: Mapping[bytes, bytes], member_id: int
    ) -> bytes:
        """The first bytes of the file. ``facts`` are the store's; of them, users, roles and the alarm come along."""
        writer = self._writer
        buckets = {name: writer.tree() for name in (*BUCKETS, META, LEASE)} | {KEY: self._keys}
        for key, value in sorted(map(encode_lease, leases)):
            buckets[LEASE].put(key, value)
        for name, pairs in (buckets_of(facts[BOOK_FACT]) if BOOK_FACT in facts else {}).items():
            for key, value in pairs:
                buckets[name].put(key, value)
        for alarm in sorted(encode_alarm(kind, member_id) for kind in (NO_SPACE, CORRUPT) if kind in facts):
            buckets[ALARM].put(alarm, b"")
        # etcd skips entries of its raft log up to this index: a new cluster's log must begin above it.
        meta = {CONSISTENT_INDEX: NUMBER.pack(1), TERM: NUMBER.pack(1)}
        if compacted_revision:
            meta |= dict.fromkeys((FINISHED_COMPACTION, SCHEDULED_COMPACTION), encode_revision(compacted_revision))
        for name, value in sorted(meta.items()):
            buckets[META].put(name, value)
        root = writer.tree()
        for name, tree in sorted(buckets.items()):
            root.put_bucket(name, tree)
        return writer.finish(root)
