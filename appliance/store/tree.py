"""Every kept revision of every key: the index over the log, and how a record changes it.

Writing and replaying go through the same ``apply``. The index is ahead of the disk by what is staged; readers ask for
the durable revision and walk a key's chain of records back to it, so they never see what may still be lost.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from appliance.store.cache import RecordCache
from appliance.store.frames import (
    BURIED,
    COMPACT,
    DEAD,
    DELETE,
    DELETE_RANGE,
    FACT,
    LOCATION_MASK,
    MOVED,
    OFFSET_BITS,
    PUT,
    Record,
    encode_record,
)  # fmt: skip
from appliance.store.index import Index
from appliance.store.log import Batch, Log
from appliance.store.results import KeyValue
from appliance.store.rules import in_range

INDEX, SETTLED, TOMBSTONE, COMPACTED, FACTS = range(5)  # what an undo entry takes back
CHANGES = (PUT, DELETE, BURIED, DELETE_RANGE)  # records of history: they stay where they are until it is compacted
GONE = (DELETE, BURIED)  # records that say that the key was not there
_MARK_EVERY = 64 << 10  # bytes of log between two marks


class RangeTombstone(NamedTuple):
    """Every key of the range that lived when ``revision`` was written was deleted by it."""

    revision: int
    key: bytes
    range_end: bytes


class Marks:
    """Sparse map from revision to location: all records before the location are of that revision or an older one."""

    def __init__(self) -> None:
        self.revisions = array("Q")
        self.locations = array("Q")

    def add(self, revision: int, at: int) -> None:
        """Unless the last mark is near."""
        if not self.locations or at - self.locations[-1] >= _MARK_EVERY:
            self.revisions.append(revision)
            self.locations.append(at)

    def before(self, revision: int) -> int:
        """A location before which nothing is newer than ``revision``; 0 when there is none."""
        number = bisect_right(self.revisions, revision) - 1
        return self.locations[number] if number >= 0 else 0

    def revision_at(self, at: int) -> int:
        """A revision all of whose successors lie behind the location, or nearly; 0 when there is none."""
        number = bisect_right(self.locations, at) - 1
        return self.revisions[number] if number >= 0 else 0

    def forget_before(self, revision: int) -> None:
        """Keep one mark that is older, and all newer."""
        number = bisect_right(self.revisions, revision) - 1
        if number > 0:
            del self.revisions[:number], self.locations[:number]


class Tree:
    """``revision`` counts what is staged, ``durable_revision`` what may be seen."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.index = Index(log.key)
        self.settled = Index(log.key)  # where compaction put the oldest kept record of a key that has newer ones
        self.tombstones: list[RangeTombstone] = []
        self.marks = Marks()
        self.facts: dict[bytes, bytes] = {}  # small things without revisions; every checkpoint has all of them
        self.revision = 1
        self.durable_revision = 1
        self.compacted_revision = 0
        self.in_flight: Batch | None = None
        self.cache = RecordCache(0)
        self.puts = self.deletes = self.ranges = self.txns = 0  # so many were done

    # changing

    def write(
        self, kind: int, key: bytes, value: bytes, mod: int, *, create: int = 0, version: int = 0, lease: int = 0,
        prev: int = 0, slot: tuple[int, int, bool] | None = None,
    ) -> None:  # fmt: skip
        """Stage a record and apply it. ``slot`` is the key's place in the index, when the caller just looked."""
        log = self.log
        at = log.stage(encode_record(kind, key, value, mod, create, version, lease, prev), self.revision)
        batch = log.open_batch
        assert batch is not None
        self.apply(batch, at, kind, key, value, mod, prev, slot)

    def put(
        self, key: bytes, value: bytes, mod: int, create: int, version: int, lease: int, prev: int,
        slot: tuple[int, int, bool],
    ) -> None:  # fmt: skip
        """``write`` of a PUT that is newer than all there is: what most writes are."""
        log = self.log
        at = log.stage(encode_record(PUT, key, value, mod, create, version, lease, prev), self.revision)
        batch = log.open_batch
        assert batch is not None
        number, position, found = slot
        old = self.index.chunks[number].entries[position] if found else 0
        batch.undo.append((INDEX, key, old))
        self.index.set_at(slot, key, at)
        if 0 < old < DEAD:
            drops = batch.drops
            drops[old >> OFFSET_BITS] = drops.get(old >> OFFSET_BITS, 0) + 1
        self.revision = batch.last_revision = mod

    def predecessor(self, key: bytes) -> int:
        """What a new record of the key names as the one before.

        A record that a range tombstone ended does not say when: that is written down now, while it is known.
        """
        entry = self.index.find(key)
        at = entry & LOCATION_MASK
        if entry < DEAD:
            return at
        header = self.log.header(at)
        if header.kind in GONE:
            return at
        died = self.died(key, header.mod)
        if not died:
            return 0  # compacted; while a backup holds that off, it finds its way past the new record
        self.write(BURIED, key, b"", died, prev=at)
        return self.index.find(key) & LOCATION_MASK

    def apply(
        self, batch: Batch, at: int, kind: int, key: bytes, value: bytes, mod: int, prev: int,
        slot: tuple[int, int, bool] | None = None,
    ) -> None:  # fmt: skip
        """What the record at ``at`` means. The batch takes the undo entries and the counts."""
        drops = batch.drops
        if kind in (PUT, DELETE, BURIED):
            slot = slot or self.index.locate(key)
            old = self.index.entry_at(slot)
            batch.undo.append((INDEX, key, old))
            self.index.set_at(slot, key, at if kind == PUT else at | DEAD)
            if 0 < old < DEAD:
                drops[old >> OFFSET_BITS] = drops.get(old >> OFFSET_BITS, 0) + 1
            if kind != PUT:
                drops[batch.segment] = drops.get(batch.segment, 0) + 1
        elif kind == MOVED:
            index = self.settled if prev else self.index
            old = index.find(key)
            batch.undo.append((SETTLED if prev else INDEX, key, old))
            index.set(key, at | (old & DEAD))
        elif kind == DELETE_RANGE:
            self.tombstones.append(RangeTombstone(mod, key, value))
            batch.undo.append((TOMBSTONE, b"", mod))
            drops[batch.segment] = drops.get(batch.segment, 0) + 1
            for marked in filter(None, self.index.mark_dead(key, value)):
                first, last = min(marked) >> OFFSET_BITS, max(marked) >> OFFSET_BITS
                if first == last:  # as a rule; half a million need not be counted one by one
                    drops[first] = drops.get(first, 0) + len(marked)
                    continue
                for number, count in Counter([entry >> OFFSET_BITS for entry in marked]).items():
                    drops[number] = drops.get(number, 0) + count
        elif kind == FACT:
            batch.undo.append((FACTS, key, 0))
            batch.facts.append(self.facts.get(key, b""))
            drops[batch.segment] = drops.get(batch.segment, 0) + 1
            self._set_fact(key, value)
        else:
            assert kind == COMPACT, f"record kind {kind}"
            batch.undo.append((COMPACTED, b"", self.compacted_revision))
            drops[batch.segment] = drops.get(batch.segment, 0) + 1
            self.compacted_revision = max(mod, self.compacted_revision)
        self.revision = max(self.revision, mod)
        if kind in CHANGES:
            batch.last_revision = self.revision

    def undo(self, batch: Batch, *, keep: int = 0) -> None:
        """Take back all but the first ``keep`` changes of the newest batch."""
        while len(batch.undo) > keep:
            which, key, old = batch.undo.pop()
            if which == COMPACTED:
                self.compacted_revision = old
            elif which == FACTS:
                self._set_fact(key, batch.facts.pop())
            elif which == TOMBSTONE:
                self._unmark(self.tombstones[-1])
                self.tombstones.pop()
            else:
                index = self.index if which == INDEX else self.settled
                if old:
                    index.set(key, old)
                else:
                    index.remove(key)

    def _set_fact(self, name: bytes, value: bytes) -> None:
        if value:
            self.facts[name] = value
        else:
            self.facts.pop(name, None)

    def _unmark(self, tombstone: RangeTombstone) -> None:
        revived = []
        for entry in self.index.scan(tombstone.key, tombstone.range_end):
            if entry >= DEAD:
                at = entry & LOCATION_MASK
                header, key = self.log.header(at), self.log.key(at)
                if header.kind not in GONE and self.died(key, header.mod) == tombstone.revision:
                    revived.append((key, at))
        for key, at in revived:
            self.index.set(key, at)

    def settle(self, batch: Batch) -> None:
        """The batch is durable: it may be seen, and counts."""
        self.log.settle(batch)
        self.account(batch, len(batch.parts))
        self.durable_revision = max(self.durable_revision, batch.last_revision)

    def account(self, batch: Batch, records: int) -> None:
        """Count records and garbage, and mark where the batch lies."""
        segments = self.log.segments
        segment = segments[batch.segment]
        segment.records += records
        segment.last_revision = max(segment.last_revision, batch.last_revision)
        self.marks.add(batch.first_revision, batch.start)
        for number, count in batch.drops.items():
            if number in segments:
                segments[number].dropped += count

    # reading

    def died(self, key: bytes, mod: int) -> int:
        """The revision of the range tombstone that ended the key's newest record; 0 when no longer known: long ago."""
        for tombstone in self.tombstones:
            if mod < tombstone.revision and in_range(key, tombstone.key, tombstone.range_end):
                return tombstone.revision
        return 0

    def get(self, key: bytes, revision: int) -> int:
        """Location of what the key was at ``revision``; 0: it was not."""
        entry = self.index.find(key)
        return entry if entry < self._boundary(revision) else self._walk(entry, revision)

    def scan(self, key: bytes, range_end: bytes, revision: int) -> Iterator[int]:
        """Locations of what was there at ``revision``, in key order."""
        boundary = self._boundary(revision)
        ranges_are_older = not self.tombstones or self.tombstones[-1].revision <= revision
        for entry in self.index.scan(key, range_end):
            if entry < boundary:
                yield entry
            elif entry >= DEAD and ranges_are_older and entry & LOCATION_MASK < boundary:
                continue
            elif at := self._walk(entry, revision):
                yield at

    def count(self, key: bytes, range_end: bytes, revision: int) -> int:
        """How many keys there were; cheap for now, however many there are."""
        if revision >= self.revision:
            return self.index.count_live(key, range_end)
        if revision >= self.durable_revision:
            before: dict[bytes, int] = {}
            for batch in (self.in_flight, self.log.open_batch):
                for which, changed, old in batch.undo if batch else ():
                    if which == TOMBSTONE:
                        return sum(1 for _ in self.scan(key, range_end, revision))
                    if which == INDEX and in_range(changed, key, range_end):
                        before.setdefault(changed, old)
            count = self.index.count_live(key, range_end)
            return count + sum(
                (0 < old < DEAD) - (0 < self.index.find(changed) < DEAD) for changed, old in before.items()
            )
        return sum(1 for _ in self.scan(key, range_end, revision))

    def key_value(self, at: int) -> KeyValue:
        """The record, proved, as the store's callers know it."""
        record = self.log.record(at)
        return KeyValue(record.key, record.value, record.create, record.mod, record.version, record.lease)

    def key_only(self, at: int) -> KeyValue:
        """The same without the value."""
        header = self.log.header(at)
        return KeyValue(self.log.key(at), b"", header.create, header.mod, header.version, header.lease)

    def before_record(self, record: Record) -> KeyValue | None:
        """What the key was before the record, when that is kept."""
        if not record.prev or record.mod - 1 < self.compacted_revision:
            return None
        at = self._walk(record.prev, record.mod - 1, record.key)
        return self.key_value(at) if at else None

    def may_hold(self, key: bytes, lease: int) -> bool:
        """Whether the key has the lease by what is durable, or by anything staged since, which may be taken back."""
        entry = self.index.find(key)
        while entry and self.log.holds(at := entry & LOCATION_MASK):
            header = self.log.header(at)
            if header.lease == lease and header.kind not in GONE:
                return True
            if header.mod <= self.durable_revision or header.kind == MOVED:
                break
            entry = header.prev
        return False

    def _boundary(self, revision: int) -> int:
        """Live entries below it are visible at ``revision`` without a look at their records."""
        if revision >= self.revision:
            return DEAD
        if revision >= self.durable_revision:
            return self.log.durable_end
        return self.marks.before(revision)

    def _walk(self, entry: int, revision: int, key: bytes = b"") -> int:
        """Along the key's records, newest first, to the one that was there at ``revision``."""
        log = self.log
        while entry:
            at = self.locate(entry, key)
            if not at:
                return 0
            header = log.header(at)
            if header.mod <= revision:
                gone = header.kind in GONE or (entry >= DEAD and self.died(log.key(at), header.mod) <= revision)
                return 0 if gone else at
            if header.kind == MOVED:
                return 0
            key = key or log.key(at)
            entry = header.prev
        return 0

    def locate(self, entry: int, key: bytes) -> int:
        """Where the record is now that was at ``entry``; 0: it was not kept."""
        at = entry & LOCATION_MASK
        if self.log.holds(at):
            return at
        moved = self.settled.find(key)
        return moved if moved and self.log.header(moved).prev == at else 0
