"""GUID partition tables: made, read, and grown to the end of a larger disk. Pure, over bytes (UEFI 2.10, section 5.3).

Both copies are always written whole; a reader takes the first, or the second when the first is damaged.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance.errors import CorruptError

SECTOR = 512
ALIGNMENT = 1 << 20
ESP = uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
ROOT = uuid.UUID("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709")
STATE = uuid.UUID("4D21B016-B534-45C2-A9FB-5C16E091FD2D")
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_ENTRIES = 128
_ENTRIES_SECTORS = _ENTRIES * _ENTRY.size // SECTOR
FIRST_BYTES = (2 + _ENTRIES_SECTORS) * SECTOR  # what the first copy takes, with the protective MBR
LAST_BYTES = (1 + _ENTRIES_SECTORS) * SECTOR  # what the second takes, at the end of the disk


@dataclass(frozen=True)
class Partition:
    """In bytes; ``number`` counts from 1."""

    number: int
    name: str
    kind: uuid.UUID
    identity: uuid.UUID
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.size


@dataclass(frozen=True)
class Table:
    """The partitions of one disk."""

    identity: uuid.UUID
    disk_size: int
    partitions: tuple[Partition, ...]

    def find(self, name: str) -> Partition | None:
        """The partition of that name."""
        return next((one for one in self.partitions if one.name == name), None)


def lay_out(identity: uuid.UUID, disk_size: int, wanted: Sequence[tuple[str, uuid.UUID, int]]) -> Table:
    """Partitions of (name, kind, bytes) one after the other; the last takes what is left when it asks for 0."""
    at, partitions = ALIGNMENT, []
    limit = (disk_size - LAST_BYTES) // ALIGNMENT * ALIGNMENT
    for number, (name, kind, size) in enumerate(wanted, 1):
        length = -(-size // ALIGNMENT) * ALIGNMENT if size else limit - at
        assert 0 < length <= limit - at, f"the disk has no room for {name}"
        partitions.append(Partition(number, name, kind, uuid.uuid5(identity, name), at, length))
        at += length
    return Table(identity, disk_size, tuple(partitions))


def grow_last(table: Table, disk_size: int) -> Table:
    """The same table on a larger disk, its last partition grown to the end."""
    last = max(table.partitions, key=lambda one: one.start)
    limit = (disk_size - LAST_BYTES) // ALIGNMENT * ALIGNMENT
    grown = replace(last, size=max(last.size, limit - last.start))
    others = tuple(grown if one == last else one for one in table.partitions)
    return Table(table.identity, disk_size, others)


def encode(table: Table) -> tuple[bytes, bytes]:
    """(bytes from the start of the disk, bytes that end the disk)."""
    sectors = table.disk_size // SECTOR
    entries = bytearray(_ENTRIES * _ENTRY.size)
    for one in table.partitions:
        name = one.name.encode("utf-16-le").ljust(72, b"\0")
        first, last = one.start // SECTOR, one.end // SECTOR - 1
        at = (one.number - 1) * _ENTRY.size
        _ENTRY.pack_into(entries, at, one.kind.bytes_le, one.identity.bytes_le, first, last, 0, name)
    backup = sectors - 1
    first_copy = _encode_header(table, bytes(entries), 1, backup, 2)
    second_copy = _encode_header(table, bytes(entries), backup, 1, backup - _ENTRIES_SECTORS)
    return _protective_mbr(sectors) + first_copy + bytes(entries), bytes(entries) + second_copy


def decode(first: bytes, last: bytes, disk_size: int) -> Table:
    """From the first FIRST_BYTES and the last LAST_BYTES of a disk. Raises CorruptError when neither copy is whole.

    ``last`` may come from a disk that is larger than the table was made for: then only the first copy counts.
    """
    header, entries = first[SECTOR : 2 * SECTOR], first[2 * SECTOR :]
    table = _decode_copy(header, entries, disk_size) or _decode_copy(last[-SECTOR:], last[:-SECTOR], disk_size)
    if table is None:
        raise CorruptError("cannot read the partition table: neither copy is whole")
    return table


def _encode_header(table: Table, entries: bytes, own: int, other: int, entries_at: int) -> bytes:
    sectors = table.disk_size // SECTOR
    usable = (2 + _ENTRIES_SECTORS, sectors - 2 - _ENTRIES_SECTORS)
    sum_of_entries = zlib.crc32(entries)

    def pack(checksum: int) -> bytes:
        return _HEADER.pack(
            b"EFI PART", 0x10000, _HEADER.size, checksum, 0, own, other, *usable, table.identity.bytes_le,
            entries_at, _ENTRIES, _ENTRY.size, sum_of_entries,
        )  # fmt: skip

    return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")


def _protective_mbr(sectors: int) -> bytes:
    size = min(sectors - 1, 0xFFFFFFFF)
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, size)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def _decode_copy(header: bytes, entries: bytes, disk_size: int) -> Table | None:
    if len(header) < _HEADER.size or header[:8] != b"EFI PART":
        return None
    fields = list(_HEADER.unpack_from(header))
    size, checksum, identity, count, entry_size, sum_of_entries = (fields[index] for index in (2, 3, 9, 11, 12, 13))
    if size != _HEADER.size or entry_size != _ENTRY.size or count > _ENTRIES:
        return None
    zeroed = header[:16] + bytes(4) + header[20 : _HEADER.size]
    entries = entries[: count * entry_size]
    if zlib.crc32(zeroed) != checksum or zlib.crc32(entries) != sum_of_entries:
        return None
    partitions = []
    for number in range(1, count + 1):
        kind, own, first, last, _, name = _ENTRY.unpack_from(entries, (number - 1) * _ENTRY.size)
        if any(kind):
            text = name.decode("utf-16-le", "replace").split("\0")[0]
            start, end = first * SECTOR, (last + 1) * SECTOR
            ids = uuid.UUID(bytes_le=kind), uuid.UUID(bytes_le=own)
            partitions.append(Partition(number, text, *ids, start, end - start))
    return Table(uuid.UUID(bytes_le=identity), disk_size, tuple(partitions))
