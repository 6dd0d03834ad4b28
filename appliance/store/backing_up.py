"""A backup: a stream of frames that ends with a seal, so that a cut-off one is known.

First what each key was just before the compacted revision, in key order, as moved records; then every kept change from
the compacted revision on, in the order it happened; so a restored store answers as the old one did, watchers included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from appliance.errors import CorruptError, InputError
from appliance.host import entropy
from appliance.host.disk import Disk
from appliance.store import frames
from appliance.store.checkpoint import NAMES
from appliance.store.frames import (
    COMPACT,
    DELETE,
    DELETE_RANGE,
    FACT,
    FRAME_HEADER_SIZE,
    MOVED,
    PUT,
    SEGMENT_HEADER_SIZE,
    Record,
    SegmentHeader,
)  # fmt: skip
from appliance.store.log import Log
from appliance.store.opening import RESTORING
from appliance.store.tree import Tree

END = 7  # the last record of a backup: mod is its revision, version the number of records before it
_SLICE = 256
_CHUNK_BYTES = 64 << 10


def backup_chunks(tree: Tree) -> Iterator[bytes]:
    """Pieces of a backup, empty ones where a pause is due. No segment may go away before it is exhausted."""
    revision, compacted, end = tree.durable_revision, tree.compacted_revision, tree.log.durable_end
    salt = bytes.fromhex(entropy.token(8))
    yield frames.encode_segment_header(SegmentHeader(0, salt, revision, 0))
    sequence = 0
    count = size = 0
    packed: list[bytes] = [frames.encode_record(COMPACT, b"", b"", compacted)] if compacted else []
    for record in _records(tree, revision, compacted, end):
        if record:
            packed.append(record)
            size += len(record)
        elif record is None and size >= _CHUNK_BYTES:
            sequence, count = sequence + 1, count + len(packed)
            yield frames.encode_frame(b"".join(packed), sequence, salt)
            packed, size = [], 0
        else:
            yield b""
    if packed:
        sequence, count = sequence + 1, count + len(packed)
        yield frames.encode_frame(b"".join(packed), sequence, salt)
    yield frames.encode_frame(frames.encode_record(END, b"", b"", revision, version=count), sequence + 1, salt)


def _records(tree: Tree, revision: int, compacted: int, end: int) -> Iterator[bytes | None]:
    """Records; an empty one now and then, to pause; None after whole revisions only, where a frame may end."""
    yield from [frames.encode_record(FACT, name, value, 0) for name, value in tree.facts.items()]
    yield None
    if compacted:
        yield from _bases(tree, compacted - 1)
    log = tree.log
    begin = tree.marks.before(compacted - 1) if compacted else 0
    seen = 0  # a rewriting that was cut off left some of it twice
    for number, segment in sorted(log.segments.items()):
        offset = SEGMENT_HEADER_SIZE
        if number == begin >> frames.OFFSET_BITS:
            offset = begin & frames.OFFSET_MASK
        if frames.location(number, segment.end) <= begin:
            continue
        for at, body in log.frames_from(segment, offset):
            if frames.location(number, at) >= end:
                return
            newest = seen
            for looked, (_, record) in enumerate(frames.decode_records(body), 1):
                if not looked % _SLICE:
                    yield b""  # a batch may have had a hundred thousand
                newest = max(newest, record.mod)
                if record.kind in (PUT, DELETE, DELETE_RANGE) and max(compacted, seen + 1) <= record.mod <= revision:
                    yield _without_prev(record)
            seen = newest
            yield None


def _bases(tree: Tree, revision: int) -> Iterator[bytes | None]:
    key = b"\0"
    while True:
        found = [tree.log.record(at) for at in islice(tree.scan(key, b"\0", revision), _SLICE)]
        for record in found:
            yield _without_prev(record._replace(kind=MOVED))
        yield None
        if len(found) < _SLICE:
            return
        key = found[-1].key + b"\0"


def _without_prev(record: Record) -> bytes:
    return frames.encode_record(
        record.kind, record.key, record.value, record.mod, record.create, record.version, record.lease
    )


def read_backup(chunks: Iterable[bytes], name: str = "the backup") -> Iterator[list[Record]]:
    """Frames of records, proved. Raises CorruptError (it says which byte), also at the end when the seal is missing."""
    source = _Source(chunks, name)
    header = frames.decode_segment_header(source.take(SEGMENT_HEADER_SIZE), name)
    if header is None or header.number != 0:
        raise InputError(f"cannot read {name}: it is not a backup of a store", where=name)
    count = 0
    while True:
        begin = source.position
        head = frames.decode_frame_header(source.take(FRAME_HEADER_SIZE))
        body = source.take(head.length) if head else b""
        if head is None or not frames.frame_is_whole(head, body, header.salt):
            raise CorruptError(f"cannot read {name}: byte {begin}: the checksum of what follows does not hold")
        records = [record for _, record in frames.decode_records(body)]
        if records[-1].kind == END:
            if records[-1].version != count:
                raise CorruptError(f"cannot read {name}: {count} records of {records[-1].version}")
            yield records
            return
        count += len(records)
        yield records


class _Source:
    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        self._chunks = iter(chunks)
        self._name = name
        self._left = b""
        self.position = 0

    def take(self, size: int) -> bytes:
        parts, got = [self._left], len(self._left)
        while got < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise CorruptError(f"cannot read {self._name}: it ends at byte {self.position + got}, cut off")
            parts.append(chunk)
            got += len(chunk)
        data = b"".join(parts)
        self._left = data[size:]
        self.position += size
        return data[:size]


def restore(disk: Disk, chunks: Iterable[bytes], *, replace: bool = False, name: str = "the backup") -> int:
    """Make a store of a backup; returns its revision. Offline. A restore that was cut off may simply be run again.

    Raises InputError when there is a store already and ``replace`` is not set, CorruptError for a damaged backup.
    """
    names = disk.names()
    ours = [n for n in names if frames.segment_number(n) is not None or n.startswith(NAMES[0])]
    if ours and not replace and RESTORING not in names:
        raise InputError(f"cannot restore {name}: there is a store in {disk.path('')} already", where=disk.path(""))
    mark = disk.create(RESTORING)
    try:
        mark.sync()
    finally:
        mark.close()
    disk.sync_names()
    for old in ours:
        disk.remove(old)
    disk.sync_names()
    log = Log(disk, segment_bytes=64 << 20, reserve_bytes=0)
    tree = Tree(log)
    try:
        for records in read_backup(chunks, name):
            for record in records:
                if record.kind == END:
                    if record.mod != tree.revision:
                        raise CorruptError(f"cannot read {name}: it ends at revision {tree.revision}, not {record.mod}")
                    continue
                prev = tree.predecessor(record.key) if record.kind in (PUT, DELETE) else 0
                tree.write(
                    record.kind, record.key, record.value, record.mod, create=record.create, version=record.version,
                    lease=record.lease, prev=prev,
                )  # fmt: skip
            batch = log.take()
            if batch is not None:
                log.write(batch)
                tree.settle(batch)
    finally:
        log.close()
    disk.remove(RESTORING)
    disk.sync_names()
    return tree.revision


def check_backup(chunks: Iterable[bytes], name: str = "the backup") -> int:
    """The backup's revision. Raises as ``read_backup``."""
    revision = 0
    for records in read_backup(chunks, name):
        revision = records[-1].mod
    return revision
