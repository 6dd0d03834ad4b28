"""All that is kept, as plain changes in the order of revisions, for whoever keeps such things in another form.

First what each key was just before the compacted revision, by the revision it is from; then every change from there on,
deleted ranges key by key. Only 16 bytes per key of the first part are held, while they are put in order.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import NamedTuple

from appliance.errors import CorruptError
from appliance.store import frames
from appliance.store.frames import DELETE, DELETE_RANGE, LOCATION_MASK, PUT, SEGMENT_HEADER_SIZE, Record
from appliance.store.tree import Tree

_SLICE = 256
_RUN = 1 << 13
Batches = Iterator[list["Change"]]


class Change(NamedTuple):
    """One key at one revision. ``sub`` counts the changes of a revision; of a deletion the last four are empty."""

    revision: int
    sub: int
    key: bytes
    deleted: bool
    value: bytes = b""
    create_revision: int = 0
    version: int = 0
    lease: int = 0


class Export:
    """What the store kept at ``revision``. Use it while ``Store.export`` is open."""

    def __init__(self, tree: Tree) -> None:
        self.revision = tree.durable_revision
        self.compacted_revision = tree.compacted_revision
        self.facts = dict(tree.facts)
        self._tree = tree
        self._end = tree.log.durable_end

    def changes(self) -> Batches:
        """In order; an empty list where a pause is due, behind some hundred records."""
        return _numbered(self._records())

    def _records(self) -> Iterator[list[Record]]:
        if self.compacted_revision:
            yield from self._bases(self.compacted_revision - 1)
        yield from self._history(self.compacted_revision)

    def _bases(self, revision: int) -> Iterator[list[Record]]:
        log = self._tree.log
        runs: list[tuple[array[int], array[int]]] = []
        run: list[tuple[int, int]] = []
        key: bytes | None = b"\0"
        while key is not None:
            found = [at & LOCATION_MASK for at in islice(self._tree.scan(key, b"\0", revision), _SLICE)]
            run += [(log.header(at).mod, at) for at in found]
            key = log.key(found[-1]) + b"\0" if len(found) == _SLICE else None
            if len(run) >= _RUN or key is None:
                run.sort()
                runs.append((array("Q", [mod for mod, _ in run]), array("Q", [at for _, at in run])))
                run = []
            yield []
        ordered = merge(*(zip(*columns, strict=True) for columns in runs))
        while places := list(islice(ordered, _SLICE)):
            yield [log.record(at)._replace(kind=PUT) for _, at in places]

    def _history(self, compacted: int) -> Iterator[list[Record]]:
        tree, log = self._tree, self._tree.log
        begin = tree.marks.before(compacted - 1) if compacted else 0
        seen = 0  # a rewriting that was cut off left some of it twice
        for number, segment in sorted(log.segments.items()):
            offset = SEGMENT_HEADER_SIZE
            if number == begin >> frames.OFFSET_BITS:
                offset = begin & frames.OFFSET_MASK
            if frames.location(number, segment.end) <= begin:
                continue
            for at, body in log.frames_from(segment, offset):
                if frames.location(number, at) >= self._end:
                    return
                found: list[Record] = []
                newest = seen
                for _, record in frames.decode_records(body):
                    newest = max(newest, record.mod)
                    if not max(compacted, seen + 1) <= record.mod <= self.revision:
                        continue
                    if record.kind in (PUT, DELETE):
                        found.append(record)
                    elif record.kind == DELETE_RANGE:
                        yield found
                        yield from self._deleted(record)
                        found = []
                    if len(found) >= _SLICE:
                        yield found
                        found = []
                seen = newest
                yield found

    def _deleted(self, record: Record) -> Iterator[list[Record]]:
        """What a range tombstone deleted: it is alone in its revision, or the first."""
        key, log = record.key, self._tree.log
        while True:
            places = islice(self._tree.scan(key, record.value, record.mod - 1), _SLICE)
            found = [record._replace(kind=DELETE, key=log.key(at & LOCATION_MASK), value=b"") for at in places]
            yield found
            if len(found) < _SLICE:
                return
            key = found[-1].key + b"\0"


def _numbered(batches: Iterable[list[Record]]) -> Batches:
    last = sub = 0
    for records in batches:
        changes: list[Change] = []
        for record in records:
            if record.mod < last:
                raise CorruptError(f"cannot export the store: revision {record.mod} stands behind {last}")
            sub = sub + 1 if record.mod == last else 0
            last = record.mod
            if record.kind == PUT:
                rest = (record.value, record.create, record.version, record.lease)
                changes.append(Change(last, sub, record.key, False, *rest))
            else:
                changes.append(Change(last, sub, record.key, True))
        if changes:
            yield changes
        yield []
