"""The index as a file, so that opening replays only the end of the log. Pure, but for ``read_checkpoint``.

It is no mere cache: once compaction has given segments back, the log alone no longer tells what was deleted. Therefore
it is kept twice (``checkpoint``, ``checkpoint.twin``), each written anew, synced and renamed into place.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance.errors import CorruptError
from appliance.host.disk import Disk
from appliance.store import frames
from appliance.store.frames import FORMAT_VERSION, check_format
from appliance.store.index import Chunk, Index
from appliance.store.log import Batch
from appliance.store.tree import Marks, RangeTombstone, Tree

NAMES = ("checkpoint", "checkpoint.twin")
_MAGIC = b"APPLCKP\n"
_HEAD = struct.Struct("<8sII")  # magic, version, crc of the rest
_COUNTS = struct.Struct("<QQQQIIQQQ")  # position, next sequence, revision, compacted, then how many of each part
_SEGMENT = struct.Struct("<QQQQQ")
_TOMBSTONE = struct.Struct("<QII")
_CHUNK = struct.Struct("<IIII")
_COUNT = struct.Struct("<I")
_FACT = struct.Struct("<II")


@dataclass(frozen=True)
class SegmentCounts:
    """What is known of a segment without reading it."""

    number: int
    end: int
    records: int
    dropped: int
    last_revision: int


@dataclass(frozen=True)
class Checkpoint:
    """The state of a tree at a location of the log."""

    position: int
    next_sequence: int
    revision: int
    compacted_revision: int
    segments: tuple[SegmentCounts, ...]
    tombstones: list[RangeTombstone]
    marks: Marks
    index: tuple[list[bytes], list[Chunk]]
    settled: tuple[list[bytes], list[Chunk]]
    facts: dict[bytes, bytes]


def encode_checkpoint(tree: Tree, position: int, next_sequence: int, counts: Sequence[SegmentCounts]) -> list[bytes]:
    """Pieces of the file. The tree's staged state must be that of ``position``."""
    parts = [
        _COUNTS.pack(
            position, next_sequence, tree.revision, tree.compacted_revision, len(counts), len(tree.tombstones),
            len(tree.marks.revisions), len(tree.index.chunks), len(tree.settled.chunks),
        )
    ]  # fmt: skip
    parts += [_SEGMENT.pack(c.number, c.end, c.records, c.dropped, c.last_revision) for c in counts]
    for tombstone in tree.tombstones:
        parts.append(_TOMBSTONE.pack(tombstone.revision, len(tombstone.key), len(tombstone.range_end)))
        parts += (tombstone.key, tombstone.range_end)
    parts += (_little(tree.marks.revisions), _little(tree.marks.locations))
    for index in (tree.index, tree.settled):
        for first, chunk in zip(index.firsts, index.chunks, strict=True):
            parts.append(_CHUNK.pack(len(first), len(chunk.prefix), len(chunk.entries), chunk.dead))
            parts += (first, chunk.prefix, _little(chunk.digests), _little(chunk.entries))
    parts.append(_COUNT.pack(len(tree.facts)))
    for name, value in tree.facts.items():
        parts += (_FACT.pack(len(name), len(value)), name, value)
    return parts


def seal(parts: Sequence[bytes]) -> bytes:
    """The file: the pieces behind a header with their checksum. (Slow for a large index: call it in a thread.)"""
    body = b"".join(parts)
    return _HEAD.pack(_MAGIC, FORMAT_VERSION, zlib.crc32(body)) + body


def decode_checkpoint(data: bytes, where: str) -> Checkpoint:
    """Raises CorruptError, and InputError for a newer format."""
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        raise CorruptError(f"cannot read {where}: bytes 0 to 7 are not those of a checkpoint", where=where)
    _, version, crc = _HEAD.unpack_from(data)
    check_format(version, where)
    body = memoryview(data)[_HEAD.size :]
    if zlib.crc32(body) != crc:
        raise CorruptError(
            f"cannot read {where}: the checksum at byte 12 does not hold for its {len(body)} bytes", where=where
        )
    reader = _Reader(body)
    position, sequence, revision, compacted, segments, tombstones, marks, chunks, settled = reader.take(_COUNTS)
    return Checkpoint(
        position, sequence, revision, compacted,
        tuple(SegmentCounts(*reader.take(_SEGMENT)) for _ in range(segments)),
        [reader.tombstone() for _ in range(tombstones)],
        reader.marks(marks),
        reader.chunks(chunks),
        reader.chunks(settled),
        reader.facts(),
    )  # fmt: skip


class _Reader:
    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._at = 0

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        self._at += layout.size
        return layout.unpack_from(self._body, self._at - layout.size)

    def text(self, size: int) -> bytes:
        self._at += size
        return bytes(self._body[self._at - size : self._at])

    def numbers(self, count: int) -> array[int]:
        values = array("Q")
        values.frombytes(self.text(8 * count))
        if sys.byteorder == "big":
            values.byteswap()
        return values

    def tombstone(self) -> RangeTombstone:
        revision, key_size, end_size = self.take(_TOMBSTONE)
        return RangeTombstone(revision, self.text(key_size), self.text(end_size))

    def marks(self, count: int) -> Marks:
        marks = Marks()
        marks.revisions, marks.locations = self.numbers(count), self.numbers(count)
        return marks

    def chunks(self, count: int) -> tuple[list[bytes], list[Chunk]]:
        firsts, chunks = [], []
        for _ in range(count):
            first_size, prefix_size, entries, dead = self.take(_CHUNK)
            firsts.append(self.text(first_size))
            prefix = self.text(prefix_size)
            digests = self.numbers(entries)
            chunks.append(Chunk(prefix, digests, self.numbers(entries), dead))
        return firsts, chunks

    def facts(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        if self._at == len(self._body):
            return found  # written before there were any
        for _ in range(self.take(_COUNT)[0]):
            name_size, value_size = self.take(_FACT)
            name = self.text(name_size)
            found[name] = self.text(value_size)
        return found


def _little(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def load_index(index: Index, loaded: tuple[list[bytes], list[Chunk]]) -> None:
    """Take over what a checkpoint holds."""
    index.firsts, index.chunks = loaded
    index.size = sum(len(chunk.entries) for chunk in index.chunks)
    index.dead = sum(chunk.dead for chunk in index.chunks)


def snapshot(tree: Tree, batch: Batch | None, *, without: frozenset[int]) -> list[bytes]:
    """The tree as it will be when ``batch``, the newest, is durable; segments ``without`` will be gone."""
    log = tree.log
    position = log.durable_end
    counts = {
        number: SegmentCounts(number, s.end, s.records, s.dropped, s.last_revision)
        for number, s in log.segments.items()
        if number not in without
    }
    if batch is not None:
        position = frames.location(batch.segment, batch.offset + batch.size)
        was = counts.get(batch.segment, SegmentCounts(batch.segment, 0, 0, 0, 0))
        counts[batch.segment] = SegmentCounts(
            batch.segment, batch.offset + batch.size, was.records + len(batch.parts), was.dropped,
            max(was.last_revision, batch.last_revision),
        )  # fmt: skip
        for number, count in batch.drops.items():
            if number in counts:
                counts[number] = replace(counts[number], dropped=counts[number].dropped + count)
    return encode_checkpoint(tree, position, log.next_sequence, [counts[number] for number in sorted(counts)])


def write_checkpoint(disk: Disk, data: bytes) -> None:
    """Both copies, one after the other, each durable before the next step."""
    for name in NAMES:
        file = disk.create(name + ".new")
        try:
            file.write(data, 0)
            file.sync()
        finally:
            file.close()
        disk.rename(name + ".new", name)
        disk.sync_names()


def read_checkpoint(disk: Disk, names: Sequence[str]) -> tuple[Checkpoint | None, list[str]]:
    """The newest copy that holds, and what is wrong with the others. Raises InputError for a newer format."""
    found: list[Checkpoint] = []
    problems: list[str] = []
    for name in NAMES:
        if name not in names:
            continue
        file = disk.open(name)
        try:
            found.append(decode_checkpoint(file.read(file.size(), 0), disk.path(name)))
        except CorruptError as exc:
            problems.append(exc.message)
        finally:
            file.close()
    return max(found, key=lambda checkpoint: checkpoint.position, default=None), problems
