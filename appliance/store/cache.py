"""What was made of records that are read again and again, by their locations: a record never changes where it lies."""

from __future__ import annotations

_ENTRY_BYTES = 150  # of the dictionary and of two objects' heads
_SHARE = 32  # one entry may take that part of all the room at most


class RecordCache:
    """The oldest entry goes first. Only for what is durable: a batch that is taken back leaves its place to another."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.size = 0
        self.entries: dict[int, bytes] = {}

    def add(self, at: int, made: bytes) -> None:
        """Unless it is too large."""
        if len(made) * _SHARE > self.bytes_max:
            return
        entries = self.entries
        entries[at] = made
        self.size += len(made) + _ENTRY_BYTES
        while self.size > self.bytes_max:
            self.size -= len(entries.pop(next(iter(entries)))) + _ENTRY_BYTES
