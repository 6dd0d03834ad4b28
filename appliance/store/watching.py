"""Watchers: ordered, unique, reliable, atomic by revision, resumable.

A watcher that keeps up is handed each durable batch. One whose buffer is full is left alone (the writer never waits)
and rereads the log from where it stopped, then joins the others again, in one step in which no batch can slip by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import trio

from appliance.errors import ApplianceError, UnavailableError
from appliance.store import frames
from appliance.store.faults import CompactedError
from appliance.store.frames import (
    DELETE,
    DELETE_RANGE,
    FRAME_HEADER_SIZE,
    OFFSET_BITS,
    OFFSET_MASK,
    PUT,
    SEGMENT_HEADER_SIZE,
    Record,
)  # fmt: skip
from appliance.store.ranges import Ranges
from appliance.store.results import Event, EventKind, KeyValue, WatchBatch
from appliance.store.rules import FROM_KEY, in_range
from appliance.store.tree import Tree

QUEUE_EVENTS_MAX = 1024
QUEUE_BYTES_MAX = 4 << 20
_CATCH_UP_EVENTS = 1000  # as many revisions as an etcd tells in one go
_CATCH_UP_BYTES = 256 << 10  # of log, between two pauses


class Watcher:
    """Iterate it for batches. ``next_revision`` is where it would resume; ``synced`` when it lacks nothing durable.

    ``reached``: with the batch that was given last, it was told everything up to there.
    """

    def __init__(self, hub: WatchHub, key: bytes, range_end: bytes | None, next_revision: int, prev_kv: bool) -> None:
        self.key = key
        self.range_end = range_end
        self.next_revision = next_revision
        self.prev_kv = prev_kv
        self.synced = False
        self.reached = 0
        self._hub = hub
        self._queue: deque[WatchBatch] = deque()
        self._queued_events = 0
        self._queued_bytes = 0
        self._wake = trio.Event()
        self._position = 0  # in the log, while catching up

    def __aiter__(self) -> Watcher:
        """Itself."""
        return self

    async def __anext__(self) -> WatchBatch:
        """The next events. Raises CompactedError (no longer kept) or UnavailableError (the store closed)."""
        while True:
            await trio.lowlevel.checkpoint()
            if self._queue:
                batch = self._queue.popleft()
                if not self._queue:
                    self._queued_events = self._queued_bytes = 0
                self.reached = batch.revision
                return batch
            tree = self._hub.tree
            if tree is None:
                raise UnavailableError(f"cannot watch {self.key!r}: {self._hub.closed_because}")
            if not self.synced:
                caught_up = self._catch_up(tree)
                if caught_up is not None:
                    return caught_up
                continue
            await self._wake.wait()

    def offer(self, batch: WatchBatch, size: int, before: int) -> None:
        """From the hub: take it, or fall behind. All revisions up to ``before`` were offered."""
        if self._queued_events >= QUEUE_EVENTS_MAX or self._queued_bytes >= QUEUE_BYTES_MAX:
            self.fall_behind(before)
            return
        self._queue.append(batch)
        self._queued_events += len(batch.events)
        self._queued_bytes += size
        self.next_revision = batch.revision + 1
        self.wake()

    def fall_behind(self, before: int) -> None:
        """When what is queued has been taken, reread what is newer than ``before``."""
        self.next_revision = max(self.next_revision, before + 1)
        self.synced = False
        self._position = 0
        self.wake()

    def wake(self) -> None:
        """Something changed."""
        self._wake.set()
        self._wake = trio.Event()

    def _catch_up(self, tree: Tree) -> WatchBatch | None:
        """Read a piece of the log. None: nothing for us in it, or we are synced now."""
        if self.next_revision < tree.compacted_revision:
            raise CompactedError(
                f"cannot watch {self.key!r} from revision {self.next_revision}: kept from revision "
                f"{tree.compacted_revision} on",
                tree.compacted_revision,
            )
        if self.next_revision > tree.durable_revision:
            self.synced = True
            return None
        events: list[Event] = []
        position = self._position or tree.marks.before(self.next_revision - 1)
        read = seen = 0
        log = tree.log
        while read < _CATCH_UP_BYTES and len(events) < _CATCH_UP_EVENTS:
            number = next((n for n in sorted(log.segments) if n >= position >> OFFSET_BITS), 0)
            if number > position >> OFFSET_BITS:
                position = frames.location(number, SEGMENT_HEADER_SIZE)
            if not number or position >= log.durable_end:
                self.synced = True
                break
            segment = log.segments[number]
            if position & OFFSET_MASK >= segment.end:
                position = frames.location(number + 1, SEGMENT_HEADER_SIZE)
                continue
            _, body = next(log.frames_from(segment, position & OFFSET_MASK))
            records = [record for _, record in frames.decode_records(body)]
            events += self._hub.events_of(tree, records, self, seen)
            seen = max(seen, *(record.mod for record in records))
            read += FRAME_HEADER_SIZE + len(body)
            position += FRAME_HEADER_SIZE + len(body)
        self._position = position
        self.next_revision = max(self.next_revision, (tree.durable_revision if self.synced else seen) + 1)
        self.reached = self.next_revision - 1
        return WatchBatch(events[-1].kv.mod_revision, tuple(events)) if events else None


class WatchHub:
    """All watchers of a store. ``tree`` is None while it is closed."""

    def __init__(self) -> None:
        self.tree: Tree | None = None
        self.closed_because = "the store is not open"
        self._of_key: dict[bytes, set[Watcher]] = {}
        self._of_range: Ranges[Watcher] = Ranges()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._of_range) + sum(map(len, self._of_key.values()))

    def add(self, watcher: Watcher) -> None:
        """From now on it gets what it asked for."""
        if watcher.range_end:
            self._of_range.add(watcher.key, watcher.range_end, watcher)
        else:
            self._of_key.setdefault(watcher.key, set()).add(watcher)

    def remove(self, watcher: Watcher) -> None:
        """Forget it."""
        if watcher.range_end:
            self._of_range.discard(watcher.key, watcher.range_end, watcher)
            return
        same = self._of_key.get(watcher.key)
        if same is not None:
            same.discard(watcher)
            if not same:
                del self._of_key[watcher.key]

    def close(self, because: str) -> None:
        """Every watcher hears of it."""
        self.tree = None
        self.closed_because = because
        for watcher in self._all():
            watcher.fall_behind(0)

    def _all(self) -> list[Watcher]:
        return [*self._of_range, *(watcher for same in self._of_key.values() for watcher in same)]

    def deliver(self, tree: Tree, parts: Iterable[bytes], before: int) -> None:
        """A batch is durable: hand it to those who keep up. ``before`` was the durable revision until now."""
        if not self._of_range and not self._of_key:
            return
        found: dict[Watcher, list[Event]] = {}
        for part in parts:
            record = frames.decode_record(part)
            assert record is not None
            if record.kind == DELETE_RANGE:
                for watcher in self._all():  # which keys it deleted stands in the history
                    if watcher.synced and _overlap(record, watcher):
                        watcher.fall_behind(before)
                continue
            if record.kind not in (PUT, DELETE) or record.mod <= before:  # rewritten: it was told when it was new
                continue
            wanting = self._of_range.at(record.key)
            wanting += self._of_key.get(record.key, ())
            wanting = [w for w in wanting if w.synced and record.mod >= w.next_revision]
            if wanting:
                plain = _event(record)
                full = plain
                if any(w.prev_kv for w in wanting):
                    full = self._with_prev(tree, record, plain, wanting, before)
                for watcher in wanting:
                    found.setdefault(watcher, []).append(full if watcher.prev_kv else plain)
        for watcher, events in found.items():
            if watcher.synced:
                size = sum(len(event.kv.value) for event in events)
                watcher.offer(WatchBatch(events[-1].kv.mod_revision, tuple(events)), size, before)

    @staticmethod
    def _with_prev(tree: Tree, record: Record, plain: Event, wanting: list[Watcher], before: int) -> Event:
        try:
            return plain._replace(prev=tree.before_record(record))
        except ApplianceError:  # not the writer's trouble: each of them meets it when it rereads
            for watcher in wanting:
                if watcher.prev_kv:
                    watcher.fall_behind(before)
            return plain

    def events_of(self, tree: Tree, records: Iterable[Record], watcher: Watcher, seen: int) -> list[Event]:
        """What of these records the watcher wants, at its ``next_revision`` or later, and newer than ``seen``."""
        events = []
        for record in records:
            if record.mod < watcher.next_revision or record.mod <= seen:
                continue
            if record.kind == DELETE_RANGE:
                events += _deleted_by(tree, record, watcher)
            elif record.kind in (PUT, DELETE) and in_range(record.key, watcher.key, watcher.range_end):
                event = _event(record)
                events.append(event._replace(prev=tree.before_record(record)) if watcher.prev_kv else event)
        return events


def _event(record: Record) -> Event:
    if record.kind == DELETE:
        return Event(EventKind.DELETE, KeyValue(record.key, b"", 0, record.mod, 0))
    return Event(
        EventKind.PUT,
        KeyValue(record.key, record.value, record.create, record.mod, record.version, record.lease),
    )


def _overlap(tombstone: Record, watcher: Watcher) -> tuple[bytes, bytes] | None:
    """What a range tombstone and a watcher have in common, as (key, range_end); None: nothing."""
    end = watcher.range_end or watcher.key + b"\0"
    start = max(tombstone.key, watcher.key)
    ends = [e for e in (tombstone.value, end) if e != FROM_KEY]
    nearest = min(ends, default=FROM_KEY)
    return (start, nearest) if nearest == FROM_KEY or start < nearest else None


def _deleted_by(tree: Tree, record: Record, watcher: Watcher) -> list[Event]:
    """A range tombstone names no keys: they are those that were there one revision before."""
    overlap = _overlap(record, watcher)
    if overlap is None:
        return []
    with_prev = watcher.prev_kv and record.mod - 1 >= tree.compacted_revision
    events = []
    for at in tree.scan(*overlap, record.mod - 1):
        old = tree.key_value(at) if with_prev else tree.key_only(at)
        gone = KeyValue(old.key, b"", 0, record.mod, 0)
        events.append(Event(EventKind.DELETE, gone, old if with_prev else None))
    return events
