"""The log of QEMU's blklogwrites (the format of the kernel's dm-log-writes), and the disks that it says may be left.

A write that no flush has followed may be on the disk or not, sector by sector. ``states`` yields the disk at every
flush boundary, and between them after some writes with subsets of what was not flushed, chosen by the seed.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
_MAGIC = 0x6A736677736872
_FLUSH, _FUA, _DISCARD = 1, 2, 4


@dataclass(frozen=True)
class Entry:
    """One request of the guest."""

    at: int
    data: bytes
    flush: bool
    lasting: bool  # FUA: it is on the disk when it is done


def read_log(path: Path) -> list[Entry]:
    entries = []
    with path.open("rb") as log:
        magic, _, count, sector = struct.unpack("<QQQI", log.read(28))
        assert magic == _MAGIC, hex(magic)
        at = sector
        for _ in range(count):
            log.seek(at)
            start, length, flags, _ = struct.unpack("<QQQQ", log.read(32))
            at += sector
            data = b""
            if length and not flags & _DISCARD:
                log.seek(at)
                data = log.read(length * sector)
                at += length * sector
            entries.append(Entry(start * sector, data, bool(flags & _FLUSH), bool(flags & _FUA)))
    return entries


@dataclass(frozen=True)
class State:
    """What to write over the disk as it was at the beginning, in this order; ``said``: the last marker before."""

    name: str
    durable: int  # so many of the log's entries are on the disk for good
    more: tuple[tuple[int, bytes], ...]
    said: bytes


def states(entries: list[Entry], marker_at: int, *, seed: int, subsets: int, most: int) -> Iterator[State]:
    """Every flush boundary; of the rest ``most``, spread over the log."""
    rng, said, durable = random.Random(seed), b"", 0
    pending: list[Entry] = []
    between = [number for number, entry in enumerate(entries) if entry.data and entry.at != marker_at]
    chosen = set(rng.sample(between, min(len(between), most // (1 + subsets))))
    for number, entry in enumerate(entries):
        if entry.flush:
            if pending and said:
                lasting = tuple((one.at, one.data) for one in pending if one.lasting)
                yield State(f"at flush {number}, nothing of what waits", durable, lasting, said)
            durable, pending = number, []
            if said:
                yield State(f"after flush {number}", durable, (), said)
        if entry.data and entry.at == marker_at:
            said = entry.data.strip()
            continue
        if not entry.data:
            continue
        pending.append(entry)
        if said and number in chosen:
            yield State(f"after write {number}", durable, tuple((one.at, one.data) for one in pending), said)
            for _ in range(subsets):
                yield State(f"a subset at write {number}", durable, tuple(_subset(pending, rng)), said)


def _subset(pending: list[Entry], rng: random.Random) -> Iterator[tuple[int, bytes]]:
    """Any of them; one in four of those torn: some of its sectors."""
    share = rng.choice((0.2, 0.5, 0.8))
    for one in pending:
        at, data = one.at, one.data
        if not one.lasting and rng.random() >= share:
            continue
        if one.lasting or rng.random() < 0.75:
            yield at, data
            continue
        for start in range(0, len(data), SECTOR):
            if rng.random() < 0.5:
                yield at + start, data[start : start + SECTOR]
