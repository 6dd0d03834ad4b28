"""The log: segments on the disk, one open batch in memory, records by location.

The loop stages records (they have their final location at once and are readable from memory); one thread at a time
writes the batch it was given as one frame and syncs it. ``write`` is the only method for that thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from appliance.errors import CorruptError
from appliance.host import entropy, failpoint
from appliance.host.disk import Disk, DiskFile, NoRoomError
from appliance.store import frames
from appliance.store.frames import (
    FRAME_HEADER_SIZE,
    OFFSET_BITS,
    OFFSET_MASK,
    SEGMENT_HEADER_SIZE,
    Record,
    RecordHeader,
    SegmentHeader,
)  # fmt: skip

_HEAD_GUESS = 512
_RECORD_GUESS = 2048
_ZEROS = bytes(1 << 20)


@dataclass(eq=False)
class Segment:
    """One file. ``records`` and ``dropped`` (superseded, or tombstones) tell compaction how much of it is garbage."""

    number: int
    salt: bytes
    file: DiskFile
    end: int = SEGMENT_HEADER_SIZE  # of what is durable
    filled: int = 0  # room made ahead, up to this offset
    records: int = 0
    dropped: int = 0
    last_revision: int = 0  # newest in it of history: moved records and facts do not count


@dataclass(eq=False)
class Batch:
    """What will be one frame. ``undo`` takes the index back, last first: (which index, key, entry before)."""

    segment: int
    offset: int
    sequence: int
    first_revision: int
    parts: list[bytes] = field(default_factory=list)
    size: int = FRAME_HEADER_SIZE
    undo: list[tuple[int, bytes, int]] = field(default_factory=list)
    facts: list[bytes] = field(default_factory=list)  # what facts were before, for ``undo``
    drops: dict[int, int] = field(default_factory=dict)  # segment -> records that this batch makes garbage
    last_revision: int = 0
    done: trio.Event = field(default_factory=trio.Event)
    callbacks: list[tuple[Callable[[Any], None], object]] = field(default_factory=list)  # with that result, or an error
    waiting: int = 0
    error: str = ""

    @property
    def start(self) -> int:
        """Its location."""
        return frames.location(self.segment, self.offset)


class Log:
    """Records by location. ``durable_end`` is the location behind the last durable frame."""

    def __init__(self, disk: Disk, *, segment_bytes: int, reserve_bytes: int) -> None:
        self.disk = disk
        self.segment_bytes = segment_bytes
        self.reserve_bytes = reserve_bytes
        self.segments: dict[int, Segment] = {}
        self.staged: dict[int, bytes] = {}  # location -> record, of batches that are not durable yet
        self.open_batch: Batch | None = None
        self.next_segment = 1  # where the next batch goes
        self.next_offset = SEGMENT_HEADER_SIZE
        self.next_sequence = 1
        self.durable_end = 0
        self.rewinds = 0  # how often a batch was taken back
        self._size = -1  # of all segments, when it is known
        self._seen = 0
        self._seen_head = b""

    # staging, by the loop

    def stage(self, record: bytes, revision: int) -> int:
        """Add to the open batch; returns its location."""
        batch = self.open_batch
        if batch is None:
            if self.next_offset >= self.segment_bytes:
                self.next_segment += 1
                self.next_offset = SEGMENT_HEADER_SIZE
            batch = Batch(self.next_segment, self.next_offset, self.next_sequence, revision)
            self.open_batch = batch
        at = batch.segment << OFFSET_BITS | batch.offset + batch.size
        batch.parts.append(record)
        batch.size += len(record)
        self.staged[at] = record
        return at

    def begin_segment(self) -> None:
        """What is staged next goes into a new one. Only when nothing is staged, or being written."""
        assert self.open_batch is None
        if self.next_offset > SEGMENT_HEADER_SIZE:
            self.next_segment += 1
            self.next_offset = SEGMENT_HEADER_SIZE

    def unstage(self, batch: Batch, parts: int) -> None:
        """Take back what was staged in the batch after its first ``parts`` records."""
        while len(batch.parts) > parts:
            batch.size -= len(batch.parts.pop())
            self.staged.pop(batch.segment << OFFSET_BITS | batch.offset + batch.size, None)
        self._seen = 0

    def take(self) -> Batch | None:
        """Close the open batch, for ``write``; what is staged from here on is the next one."""
        batch, self.open_batch = self.open_batch, None
        if batch is None:
            return None
        self.next_segment, self.next_offset = batch.segment, batch.offset + batch.size
        self.next_sequence = batch.sequence + 1
        return batch

    def settle(self, batch: Batch) -> None:
        """The batch is durable: its records are read from the disk from here on."""
        at = frames.location(batch.segment, batch.offset + FRAME_HEADER_SIZE)
        for part in batch.parts:
            self.staged.pop(at, None)
            at += len(part)
        segment = self.segments[batch.segment]
        end = batch.offset + batch.size
        if self._size >= 0:
            self._size = self._size + end - segment.end if batch.offset > SEGMENT_HEADER_SIZE else -1
        segment.end = end
        self.durable_end = frames.location(batch.segment, segment.end)

    def rewind(self, batch: Batch) -> None:
        """The batch was not written: the next one takes its place."""
        self.unstage(batch, 0)
        self.rewinds += 1
        self._size = -1
        self.next_segment, self.next_offset, self.next_sequence = batch.segment, batch.offset, batch.sequence

    # writing, in a thread

    def write(self, batch: Batch) -> None:
        """Write and sync. NoRoomError: only room is missing. After any other error: never again."""
        segment = self.segments.get(batch.segment)
        if segment is None:
            segment = self._create(batch)
        frame = frames.encode_frame(b"".join(batch.parts), batch.sequence, segment.salt)
        failpoint.reach("store-before-write")
        try:
            self._fill_ahead(segment, batch.offset + len(frame))
            segment.file.write(frame, batch.offset)
        except NoRoomError:
            segment.filled = batch.offset
            segment.file.truncate(batch.offset)  # gives room back; when this fails, the error is no longer about room
            raise
        failpoint.reach("store-before-sync")
        segment.file.sync()
        failpoint.reach("store-after-sync")

    def _create(self, batch: Batch) -> Segment:
        before = self.segments.get(batch.segment - 1)
        salt = bytes.fromhex(entropy.token(8))
        header = SegmentHeader(batch.segment, salt, batch.first_revision, before.end if before else 0)
        name = frames.segment_name(batch.segment)
        file = self.disk.create(name)
        try:
            file.write(frames.encode_segment_header(header), 0)
            file.sync()
            self.disk.sync_names()
        except NoRoomError:
            file.close()
            self.disk.remove(name)
            raise
        segment = Segment(batch.segment, salt, file, filled=SEGMENT_HEADER_SIZE)
        self.segments[batch.segment] = segment
        return segment

    def _fill_ahead(self, segment: Segment, end: int) -> None:
        """Write zeros before they are needed: a sync of filled room needs no journal commit of the file system."""
        if end <= segment.filled:
            return
        ahead = min(max(segment.filled, 64 << 10), self.reserve_bytes)
        try:
            self._fill(segment, end + ahead)
        except NoRoomError:
            segment.file.truncate(segment.filled)
            self._fill(segment, end)

    def _fill(self, segment: Segment, end: int) -> None:
        at = segment.filled
        while at < end:
            size = min(end - at, len(_ZEROS))
            segment.file.write(_ZEROS[:size] if size < len(_ZEROS) else _ZEROS, at)
            at += size
        segment.filled = end

    # reading

    def head(self, at: int) -> bytes:
        """The record's header and the first part of its key."""
        if at == self._seen:
            return self._seen_head
        data = self.staged.get(at)
        if data is None:
            data = self._read(at, _HEAD_GUESS)
            if len(data) < frames.RECORD_HEADER_SIZE:
                raise self.corrupt(at, "a record was expected here")
        self._seen, self._seen_head = at, data
        return data

    def header(self, at: int) -> RecordHeader:
        """The record's header; not proved by its checksum."""
        return frames.decode_record_header(self.head(at))

    def key(self, at: int) -> bytes:
        """The record's key; not proved by its checksum."""
        data = self.head(at)
        key_size = int.from_bytes(data[8:12], "little")
        end = frames.RECORD_HEADER_SIZE + key_size
        if end > len(data):
            data = self._read(at, end)
            if end > len(data):
                raise self.corrupt(at, f"a key of {key_size} bytes was expected here")
        return data[frames.RECORD_HEADER_SIZE : end]

    def record(self, at: int) -> Record:
        """The whole record, proved. Raises CorruptError naming file and byte."""
        data = self.staged.get(at) or self._read(at, _RECORD_GUESS)
        record = frames.decode_record(data)
        if record is None and len(data) >= frames.RECORD_HEADER_SIZE:
            size = frames.record_size(data)
            if size > len(data):
                segment = self.segments[at >> OFFSET_BITS]
                if size > segment.end - (at & OFFSET_MASK):
                    raise self.corrupt(at, f"a record of {size} bytes does not fit here")
                record = frames.decode_record(self._read(at, size))
        if record is None:
            raise self.corrupt(at, "the record's checksum does not hold")
        return record

    def holds(self, at: int) -> bool:
        """Whether the location's segment is still there."""
        return at in self.staged or at >> OFFSET_BITS in self.segments

    def frames_from(self, segment: Segment, offset: int) -> Iterator[tuple[int, bytes]]:
        """(offset, records) of the durable frames of one segment. Raises CorruptError at one that does not hold."""
        while offset < segment.end:
            at = frames.location(segment.number, offset)
            header = frames.decode_frame_header(segment.file.read(FRAME_HEADER_SIZE, offset))
            if header is None or offset + FRAME_HEADER_SIZE + header.length > segment.end:
                raise self.corrupt(at, "a frame was expected here")
            body = segment.file.read(header.length, offset + FRAME_HEADER_SIZE)
            if not frames.frame_is_whole(header, body, segment.salt):
                raise self.corrupt(at, "the frame's checksum does not hold")
            yield offset, body
            offset += FRAME_HEADER_SIZE + header.length

    def corrupt(self, at: int, why: str) -> CorruptError:
        """Says which byte of which file."""
        path = self.disk.path(frames.segment_name(at >> OFFSET_BITS))
        return CorruptError(f"cannot read {path}: byte {at & OFFSET_MASK}: {why}", where=path)

    def _read(self, at: int, size: int) -> bytes:
        segment = self.segments.get(at >> OFFSET_BITS)
        if segment is None:
            raise self.corrupt(at, "the file is missing")
        return segment.file.read(size, at & OFFSET_MASK)

    def size_bytes(self) -> int:
        """Of all segments, without room made ahead."""
        if self._size < 0:
            self._size = sum(segment.end for segment in list(self.segments.values()))  # the thread may add one
        return self._size

    def drop(self, number: int) -> Segment | None:
        """Forget a segment; the caller removes the file."""
        self._seen = 0
        self._size = -1
        return self.segments.pop(number, None)

    def close(self) -> None:
        """Let all files go. Reading raises UnavailableError afterwards."""
        for segment in self.segments.values():
            segment.file.close()
