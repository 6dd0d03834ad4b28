"""Give back what no kept revision needs, a slice at a time. Synchronous: the shell waits and syncs between slices.

What is kept for a key at compacted revision C: every record newer than C, and what it was at C (``base``). A segment
whose revisions are all older than C and of which half is garbage becomes a victim: the bases in it are copied to the
end of the log, the index follows, and after the next checkpoint the file goes. Newer records are never moved, so the
log from C on stays in the order of revisions, which is what watchers reread.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from appliance.store import frames
from appliance.store.frames import (
    DEAD,
    FRAME_HEADER_SIZE,
    LOCATION_MASK,
    MOVED,
    OFFSET_BITS,
    PUT,
    SEGMENT_HEADER_SIZE,
    Record,
)  # fmt: skip
from appliance.store.log import Segment
from appliance.store.tree import GONE, Tree

SLICE = 256  # records looked at between two pauses
_WALK_SLICE = 2048


def victims(tree: Tree, *, thorough: bool = False, rewritten: bool = False) -> list[Segment]:
    """Segments that hold no more history, and are garbage by half; ``thorough``: that hold any.

    ``rewritten``: the history stands in the newest one, too.
    """
    sealed_before = tree.log.durable_end >> OFFSET_BITS
    oldest = max(tree.compacted_revision, 1)
    sealed = [segment for number, segment in sorted(tree.log.segments.items()) if number < sealed_before]
    return [
        segment for segment in sealed
        if (rewritten and segment.last_revision >= oldest)
        or (
            segment.last_revision < oldest
            and (segment.dropped * 2 >= segment.records or (thorough and segment.dropped))
        )
    ]  # fmt: skip


class Compaction:
    """One run over the tree. When ``steps`` has ended and a checkpoint without ``victims`` lasts, they may go."""

    def __init__(self, tree: Tree, *, thorough: bool = False, rewritten: bool = False) -> None:
        self._tree = tree
        self._log = tree.log
        self._revision = tree.compacted_revision
        self._bases: dict[bytes, int] = {}  # of keys with long chains
        self._segments = victims(tree, thorough=thorough, rewritten=rewritten)
        self.victims = frozenset(segment.number for segment in self._segments)
        self.moved = 0

    def steps(self) -> Iterator[None]:
        """Each step looks at a few hundred records; what it staged must be durable before the next."""
        yield from self._forget_deleted()
        for segment in self._segments:
            yield from self._empty(segment)

    def finish(self) -> None:
        """All that was staged by the steps, or while they went on, is durable."""
        tree = self._tree
        tree.tombstones = [tombstone for tombstone in tree.tombstones if tombstone.revision >= self._revision]
        tree.marks.forget_before(self._revision - 1)

    def _forget_deleted(self) -> Iterator[None]:
        """Drop keys that were deleted before the compacted revision."""
        tree, log = self._tree, self._log
        key: bytes | None = b""
        looked = 0
        while key is not None:
            dead, key = tree.index.dead_from(key)
            for entry in dead:
                at = entry & LOCATION_MASK
                header = log.header(at)
                name = log.key(at)
                died = header.mod if header.kind in GONE else tree.died(name, header.mod)
                if died < self._revision:
                    tree.index.remove(name)
            looked += len(dead) + 4
            if looked >= SLICE:
                looked = 0
                yield

    def _empty(self, segment: Segment) -> Iterator[None]:
        looked = 0
        for offset, body in self._log.frames_from(segment, SEGMENT_HEADER_SIZE):
            begin = frames.location(segment.number, offset + FRAME_HEADER_SIZE)
            for at, record in frames.decode_records(body):
                yield from self._rescue(record, begin + at)
                looked += 1
                if looked >= SLICE:
                    looked = 0
                    yield

    def _rescue(self, record: Record, at: int) -> Iterator[None]:
        """Move the record when it is a base, and let no index point to it."""
        tree, key = self._tree, record.key
        if record.kind not in (PUT, MOVED, *GONE):
            return
        head = tree.index.find(key)
        if head and head & LOCATION_MASK == at:
            if head >= DEAD and (record.kind in GONE or tree.died(key, record.mod) < self._revision):
                tree.index.remove(key)
            else:
                self._move(record, 0)
            return
        base = (yield from self._base(key, head)) if record.kind not in GONE else 0
        if base == at:
            self._move(record, record.prev if record.kind == MOVED and record.prev else at)
        elif tree.settled.find(key) == at:
            tree.settled.remove(key)

    def _move(self, record: Record, known_as: int) -> None:
        self.moved += 1
        self._tree.write(
            MOVED, record.key, record.value, record.mod,
            create=record.create, version=record.version, lease=record.lease, prev=known_as,
        )  # fmt: skip

    def _base(self, key: bytes, entry: int) -> Generator[None, None, int]:
        """Where the key's record of the compacted revision is; 0 when it was not there any more."""
        if key in self._bases:
            return self._bases[key]
        tree, log = self._tree, self._log
        steps = at = 0
        while entry and (at := tree.locate(entry, key)):
            header = log.header(at)
            if header.mod <= self._revision:
                if header.kind in GONE or (entry >= DEAD and tree.died(key, header.mod) < self._revision):
                    at = 0
                break
            entry, at = header.prev if header.kind != MOVED else 0, 0
            steps += 1
            if steps % _WALK_SLICE == 0:
                yield
        if steps > 8:
            self._bases[key] = at
        return at
