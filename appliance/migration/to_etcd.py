"""The database that etcd would have, from the store's changes as they come. Pure; memory: some pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from appliance.bolt import META_PAGES, PAGE_SIZE, Writer
from appliance.migration.etcd_layout import (
    CONSISTENT_INDEX,
    EMPTY_BUCKETS,
    FINISHED_COMPACTION,
    KEY,
    LEASE,
    META,
    NUMBER,
    SCHEDULED_COMPACTION,
    TERM,
    LeaseGrant,
    encode_change,
    encode_lease,
    encode_revision,
)  # fmt: skip
from appliance.store import Change

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

    def finish(self, compacted_revision: int, leases: Iterable[LeaseGrant]) -> bytes:
        """The first bytes of the file."""
        writer = self._writer
        buckets = {name: writer.tree() for name in (*EMPTY_BUCKETS, META, LEASE)} | {KEY: self._keys}
        for lease in sorted(leases):
            buckets[LEASE].put(*encode_lease(lease))
        # etcd skips entries of its raft log up to this index: a new cluster's log must begin above it.
        facts = {CONSISTENT_INDEX: NUMBER.pack(1), TERM: NUMBER.pack(1)}
        if compacted_revision:
            facts |= dict.fromkeys((FINISHED_COMPACTION, SCHEDULED_COMPACTION), encode_revision(compacted_revision))
        for name, value in sorted(facts.items()):
            buckets[META].put(name, value)
        root = writer.tree()
        for name, tree in sorted(buckets.items()):
            root.put_bucket(name, tree)
        return writer.finish(root)
