"""Makes an index, and the pack when the file is not its own."""

from __future__ import annotations

import hashlib
from array import array

import zstandard

from appliance.errors import InputError
from appliance.payload.cutting import AVERAGE_MAX
from appliance.payload.index import CHUNKS_MAX, Index, chunk_hash

INDEXED_FROM_BYTES = 256 << 10  # what is smaller is fetched whole
_AVERAGE = 64 << 10
_CHUNKS_WANTED = 16384
_LEVEL = 12


def average_for(length: int) -> int:
    """Longer chunks for a long file: its index stays small, and so does the memory of who reads it."""
    average = _AVERAGE
    while average < AVERAGE_MAX and length // average > _CHUNKS_WANTED:
        average *= 2
    return average


class Packer:
    """Given the chunks in order; ``add`` says what to write into the pack. ``layout`` as in ``index``."""

    def __init__(self, layout: str, average: int) -> None:
        self._layout, self._average = layout, average
        self._lengths, self._stored, self._hashes = array("I"), array("I"), bytearray()
        self._seen: set[bytes] = set()
        self._digest = hashlib.sha256()
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self.length = self.pack_length = 0

    def add(self, chunk: bytes) -> bytes:
        """What of it goes into the pack; empty when it is there already."""
        if len(self._lengths) == CHUNKS_MAX:
            raise InputError(f"cannot index the file: it has more than {CHUNKS_MAX} chunks")
        name = chunk_hash(chunk)
        stored = chunk
        if self._layout == "pack":
            packed = self._compressor.compress(chunk)
            stored = b"" if name in self._seen else packed if len(packed) < len(chunk) else chunk
        self._seen.add(name)
        self._lengths.append(len(chunk))
        self._stored.append(len(stored))
        self._hashes += name
        self._digest.update(chunk)
        self.length += len(chunk)
        self.pack_length += len(stored)
        return stored

    def index(self) -> Index:
        """Of all that was added."""
        return Index(
            length=self.length, sha256=self._digest.hexdigest(), average=self._average, layout=self._layout,
            pack_length=self.pack_length, lengths=self._lengths, stored=self._stored, hashes=bytes(self._hashes),
        )  # fmt: skip


def plain(stored: bytes | memoryview, length: int) -> bytes | memoryview | None:
    """The chunk that is stored so; None when these bytes are none of that length. Maybe a view of what was given."""
    if len(stored) == length:
        return stored
    try:
        data = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(stored, max_output_size=length)
    except zstandard.ZstdError:
        return None
    return data if len(data) == length else None
