"""The bytes on the disk: segment headers, frames, records. Pure.

A segment is a 64-byte header and frames; behind the last frame are zeros (room filled ahead) or nothing. A frame is one
commit: whole revisions, so that a torn frame loses whole transactions and never a part of one. Its checksum is seeded
with the segment's random salt: no value that a client writes can be taken for a frame. A record has its own checksum,
which every read of a value proves. Locations are ``segment << 40 | offset``; with DEAD set, what is there was deleted.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from appliance.errors import CorruptError, InputError

FORMAT_VERSION = 1
OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1
DEAD = 1 << 63
LOCATION_MASK = DEAD - 1

PUT = 1
DELETE = 2
DELETE_RANGE = 3  # value is the range_end
MOVED = 4  # a put of an older revision, copied here by compaction; prev is the location its successor knows it by
COMPACT = 5  # mod_revision is the oldest revision that is kept from here on
FACT = 8  # kept beside the keys, without a revision: key is its name, value what it is; an empty one ends it
BURIED = 6  # says when a range tombstone ended the key's record before; written when the key is put again

_SEGMENT = struct.Struct("<8sII8sQQQ")  # magic, version, crc, salt, number, first revision, end of the segment before
_FRAME = struct.Struct("<4sIIQ")  # magic, length, crc, sequence
_SEALED = struct.Struct("<IQ")
_RECORD = struct.Struct("<IIIIQQQqQ")  # crc, kind, key length, value length, mod, create, version, lease, prev
_RECORD_TAIL = struct.Struct("<IIIQQQqQ")  # the same without the crc
SEGMENT_MAGIC = b"APPLSEG\n"
FRAME_MAGIC = b"\xa5fRm"
SEGMENT_HEADER_SIZE = 64
FRAME_HEADER_SIZE = _FRAME.size
RECORD_HEADER_SIZE = _RECORD.size


class SegmentHeader(NamedTuple):
    """``previous_end`` is where the segment before it ends: all of it was durable when this one was made."""

    number: int
    salt: bytes
    first_revision: int
    previous_end: int


class Record(NamedTuple):
    """One change of one key (DELETE_RANGE: of many). ``prev``: location of the key's record before, or 0."""

    kind: int
    key: bytes
    value: bytes
    mod: int
    create: int
    version: int
    lease: int
    prev: int


class RecordHeader(NamedTuple):
    """A record without its key and value."""

    crc: int
    kind: int
    key_size: int
    value_size: int
    mod: int
    create: int
    version: int
    lease: int
    prev: int


def encode_segment_header(header: SegmentHeader) -> bytes:
    """64 bytes."""
    body = _SEGMENT.pack(SEGMENT_MAGIC, FORMAT_VERSION, 0, header.salt, *_numbers(header))
    sealed = _SEGMENT.pack(SEGMENT_MAGIC, FORMAT_VERSION, zlib.crc32(body), header.salt, *_numbers(header))
    return sealed.ljust(SEGMENT_HEADER_SIZE, b"\0")


def _numbers(header: SegmentHeader) -> tuple[int, int, int]:
    return header.number, header.first_revision, header.previous_end


def decode_segment_header(data: bytes, where: str) -> SegmentHeader | None:
    """None when it is torn, or not ours. Raises InputError for a newer format."""
    if len(data) < SEGMENT_HEADER_SIZE or not data.startswith(SEGMENT_MAGIC):
        return None
    _, version, crc, salt, number, first_revision, previous_end = _SEGMENT.unpack_from(data)
    check_format(version, where)
    header = SegmentHeader(number, salt, first_revision, previous_end)
    if crc != zlib.crc32(_SEGMENT.pack(SEGMENT_MAGIC, version, 0, salt, *_numbers(header))):
        return None
    return header


def check_format(version: int, where: str) -> None:
    """Raises InputError when a newer appliance wrote it: it must be read by that one."""
    if version > FORMAT_VERSION:
        raise InputError(
            f"cannot read {where}: it has format {version}, this appliance knows up to {FORMAT_VERSION}; "
            "run the newer appliance, or restore a backup",
            where=where,
        )


def encode_frame(body: bytes, sequence: int, salt: bytes) -> bytes:
    """A commit. ``sequence`` counts the frames of a store."""
    return _FRAME.pack(FRAME_MAGIC, len(body), _frame_crc(body, sequence, salt), sequence) + body


def _frame_crc(body: bytes, sequence: int, salt: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_SEALED.pack(len(body), sequence), zlib.crc32(salt)))


class FrameHeader(NamedTuple):
    """What stands before a frame's records."""

    length: int
    crc: int
    sequence: int


def decode_frame_header(data: bytes, at: int = 0) -> FrameHeader | None:
    """None when there is none."""
    if len(data) - at < FRAME_HEADER_SIZE:
        return None
    magic, length, crc, sequence = _FRAME.unpack_from(data, at)
    return FrameHeader(length, crc, sequence) if magic == FRAME_MAGIC and length else None


def frame_is_whole(header: FrameHeader, body: bytes, salt: bytes) -> bool:
    """Whether the records are those that were written."""
    return len(body) == header.length and header.crc == _frame_crc(body, header.sequence, salt)


def encode_record(
    kind: int, key: bytes, value: bytes, mod: int, create: int = 0, version: int = 0, lease: int = 0, prev: int = 0
) -> bytes:
    """With its checksum in front."""
    head = _RECORD_TAIL.pack(kind, len(key), len(value), mod, create, version, lease, prev)
    crc = zlib.crc32(value, zlib.crc32(head + key))
    return b"".join((crc.to_bytes(4, "little"), head, key, value))


def decode_record_header(data: bytes, at: int = 0) -> RecordHeader:
    """The first 56 bytes of a record; nothing is proved."""
    return RecordHeader._make(_RECORD.unpack_from(data, at))


def record_size(data: bytes, at: int = 0) -> int:
    """Of the record that begins at ``at``, by its header."""
    _, _, key_size, value_size = struct.unpack_from("<IIII", data, at)
    return RECORD_HEADER_SIZE + int(key_size) + int(value_size)


def decode_record(data: bytes, at: int = 0) -> Record | None:
    """A whole record; None when its checksum does not hold."""
    if len(data) - at < RECORD_HEADER_SIZE:
        return None
    crc, kind, key_size, value_size, mod, create, version, lease, prev = _RECORD.unpack_from(data, at)
    middle = at + RECORD_HEADER_SIZE + key_size
    end = middle + value_size
    if end > len(data) or zlib.crc32(memoryview(data)[at + 4 : end]) != crc:
        return None
    return Record(kind, data[at + RECORD_HEADER_SIZE : middle], data[middle:end], mod, create, version, lease, prev)


def decode_records(body: bytes) -> Iterator[tuple[int, Record]]:
    """(offset in the frame's body, record). Raises CorruptError at one that does not hold."""
    at = 0
    while at < len(body):
        record = decode_record(body, at)
        if record is None:
            raise CorruptError(f"a record's checksum does not hold at byte {at} of a frame")
        yield at, record
        at += RECORD_HEADER_SIZE + len(record.key) + len(record.value)


def location(segment: int, offset: int) -> int:
    """Where a record begins."""
    return segment << OFFSET_BITS | offset


def segment_name(number: int) -> str:
    """Of its file."""
    return f"segment-{number:08d}"


def segment_number(name: str) -> int | None:
    """None when it is no segment's name."""
    digits = name.removeprefix("segment-")
    return int(digits) if digits != name and len(digits) == 8 and digits.isdecimal() else None
