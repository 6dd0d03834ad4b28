"""Keys in order, without keeping keys: an entry is where the key's newest record lies. Pure, but for ``read_key``.

Entries stand in chunks of at most 512. A chunk has two arrays: digests (the 8 bytes of the key behind what all keys of
the chunk have in common) and entries; about 17 bytes a key. A search bisects the chunks' first keys, then the digests,
and reads a key from the log only to prove the hit or to part keys whose digests are equal.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from appliance.store.frames import DEAD, LOCATION_MASK

CHUNK_MAX = 512


class Chunk:
    """``dead`` counts entries with DEAD set."""

    __slots__ = ("dead", "digests", "entries", "prefix")

    def __init__(self, prefix: bytes, digests: array[int], entries: array[int], dead: int) -> None:
        self.prefix = prefix
        self.digests = digests
        self.entries = entries
        self.dead = dead


def _digest(key: bytes, skip: int) -> int:
    part = key[skip : skip + 8]
    if len(part) == 8:
        return int.from_bytes(part, "big")
    return int.from_bytes(part, "big") << 8 * (8 - len(part))


def _shared(a: bytes, b: bytes) -> int:
    """How many first bytes are the same."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle
    return low


class Index:
    """Ordered map from key to entry. ``read_key(location)`` must answer for every entry that is in it."""

    def __init__(self, read_key: Callable[[int], bytes]) -> None:
        self._read_key = read_key
        self.firsts: list[bytes] = [b""]  # a lower bound of each chunk's keys
        self.chunks: list[Chunk] = [Chunk(b"", array("Q"), array("Q"), 0)]
        self.size = 0
        self.dead = 0

    def find(self, key: bytes) -> int:
        """The key's entry, 0 when there is none."""
        number, position, found = self.locate(key)
        return self.chunks[number].entries[position] if found else 0

    def set(self, key: bytes, entry: int) -> int:
        """Add or replace; returns the entry there was, or 0. The new record must be readable by now."""
        return self.set_at(self.locate(key), key, entry)

    def entry_at(self, slot: tuple[int, int, bool]) -> int:
        """The entry that ``locate`` found, or 0."""
        number, position, found = slot
        return self.chunks[number].entries[position] if found else 0

    def set_at(self, slot: tuple[int, int, bool], key: bytes, entry: int) -> int:
        """``set`` where ``locate`` found the key; nothing may have changed in between."""
        number, position, found = slot
        if not found:
            self._insert(number, position, key, entry)
            return 0
        chunk = self.chunks[number]
        old = chunk.entries[position]
        chunk.entries[position] = entry
        if (change := (entry >= DEAD) - (old >= DEAD)) != 0:
            self._count_dead(chunk, change)
        return old

    def remove(self, key: bytes) -> int:
        """Returns the entry there was, or 0."""
        number, position, found = self.locate(key)
        if not found:
            return 0
        chunk = self.chunks[number]
        old = chunk.entries.pop(position)
        del chunk.digests[position]
        self.size -= 1
        self._count_dead(chunk, -(old >= DEAD))
        if not chunk.entries and number:
            del self.chunks[number], self.firsts[number]
        return old

    def scan(self, key: bytes, range_end: bytes) -> Iterator[int]:
        """Entries of ``key <= k < range_end`` in order (a zero byte: no end). The index must not change meanwhile."""
        for chunk, low, high in self._slices(key, range_end):
            entries = chunk.entries
            yield from entries if high - low == len(entries) else entries[low:high]

    def count_live(self, key: bytes, range_end: bytes) -> int:
        """How many entries of the range have not DEAD set."""
        count = 0
        for chunk, low, high in self._slices(key, range_end):
            count += high - low
            if chunk.dead:
                whole = high - low == len(chunk.entries)
                count -= chunk.dead if whole else sum(entry >= DEAD for entry in chunk.entries[low:high])
        return count

    def mark_dead(self, key: bytes, range_end: bytes) -> list[array[int]]:
        """Set DEAD on every entry of the range; returns the entries that had it not, by chunk."""
        marked = []
        for chunk, low, high in self._slices(key, range_end):
            part = chunk.entries[low:high]
            chunk.entries[low:high] = array("Q", [entry | DEAD for entry in part])
            fresh = part if not chunk.dead else array("Q", [entry for entry in part if entry < DEAD])
            self._count_dead(chunk, len(fresh))
            marked.append(fresh)
        return marked

    def dead_from(self, key: bytes) -> tuple[list[int], bytes | None]:
        """Entries with DEAD set of the chunk that ``key`` falls into, and where to go on (None: that was the last)."""
        number = max(bisect_right(self.firsts, key) - 1, 0)
        following = self.firsts[number + 1] if number + 1 < len(self.firsts) else None
        chunk = self.chunks[number]
        return [entry for entry in chunk.entries if entry >= DEAD] if chunk.dead else [], following

    def _slices(self, key: bytes, range_end: bytes) -> Iterator[tuple[Chunk, int, int]]:
        unbounded = range_end == b"\0"
        if not unbounded and range_end <= key:
            return
        first, low, _ = self.locate(key)
        if unbounded:
            last, high = len(self.chunks) - 1, len(self.chunks[-1].entries)
        else:
            last, high, _ = self.locate(range_end)
        for number in range(first, last + 1):
            chunk = self.chunks[number]
            start = low if number == first else 0
            end = high if number == last else len(chunk.entries)
            if start < end:
                yield chunk, start, end

    def locate(self, key: bytes) -> tuple[int, int, bool]:
        """Its slot: chunk, position in it, whether it is there."""
        number = bisect_right(self.firsts, key) - 1
        chunk = self.chunks[number]
        prefix = chunk.prefix
        if prefix and not key.startswith(prefix):
            return (number, 0, False) if key < prefix else (number, len(chunk.entries), False)
        digests = chunk.digests
        digest = _digest(key, len(prefix))
        low = bisect_left(digests, digest)
        if low == len(digests) or digests[low] != digest:
            return number, low, False
        high = bisect_right(digests, digest, low)
        if high - low > 4 and len(digests) > 8 and self._lengthen_prefix(chunk):
            return self.locate(key)
        while low < high:
            middle = (low + high) >> 1
            other = self._read_key(chunk.entries[middle] & LOCATION_MASK)
            if other < key:
                low = middle + 1
            elif other == key:
                return number, middle, True
            else:
                high = middle
        return number, low, False

    def _lengthen_prefix(self, chunk: Chunk) -> bool:
        """Many digests are equal: skip what first and last key share, if that is more than is skipped now."""
        first = self._read_key(chunk.entries[0] & LOCATION_MASK)
        shared = _shared(first, self._read_key(chunk.entries[-1] & LOCATION_MASK))
        if shared <= len(chunk.prefix):
            return False
        self._set_prefix(chunk, first[:shared])
        return True

    def _set_prefix(self, chunk: Chunk, prefix: bytes) -> None:
        skip = len(prefix)
        chunk.digests = array("Q", [_digest(self._read_key(e & LOCATION_MASK), skip) for e in chunk.entries])
        chunk.prefix = prefix

    def _insert(self, number: int, position: int, key: bytes, entry: int) -> None:
        chunk = self.chunks[number]
        if chunk.prefix and not key.startswith(chunk.prefix):
            self._set_prefix(chunk, chunk.prefix[: _shared(chunk.prefix, key)])
        chunk.digests.insert(position, _digest(key, len(chunk.prefix)))
        chunk.entries.insert(position, entry)
        self.size += 1
        if entry >= DEAD:
            self._count_dead(chunk, 1)
        if len(chunk.entries) > CHUNK_MAX:
            self._split(number, chunk)

    def _split(self, number: int, chunk: Chunk) -> None:
        # Keys that come in order fill a chunk to the end and never come back: leave most of them behind.
        half = len(chunk.entries) * 7 // 8 if number == len(self.chunks) - 1 else len(chunk.entries) // 2
        entries = chunk.entries[half:]
        first = self._read_key(entries[0] & LOCATION_MASK)  # may raise: nothing is changed yet
        dead = sum(entry >= DEAD for entry in entries) if chunk.dead else 0
        self.chunks.insert(number + 1, Chunk(chunk.prefix, chunk.digests[half:], entries, dead))
        self.firsts.insert(number + 1, first)
        chunk.digests = chunk.digests[:half]
        chunk.entries = chunk.entries[:half]
        chunk.dead -= dead

    def _count_dead(self, chunk: Chunk, change: int) -> None:
        chunk.dead += change
        self.dead += change
