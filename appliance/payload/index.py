r"""The index of a payload: every chunk's hash, length and place. It is a signed target, so what it says is believed.

    APPLIANCE-INDEX 1\n
    {"average": ..., "chunks": N, "layout": "file" | "pack", "length": ..., "pack_length": ..., "sha256": ...}\n
    zstd( N lengths, N stored lengths (4 bytes each, little-endian), N hashes (16 bytes: sha256, cut off) )

Layout ``file``: the chunks lie in the target itself, one after the other, stored as they are. Layout ``pack``: in a
file beside it, each once; stored length 0 means that an earlier chunk is the same, stored length = length that it is
not compressed. 16 bytes of hash are enough to name a chunk; the whole file's sha256 is checked in the end.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

import zstandard

from appliance.errors import InputError
from appliance.payload.cutting import AVERAGE_MAX, AVERAGE_MIN

HASH_SIZE = 16
CHUNKS_MAX = 1 << 18
INDEX_SIZE_MAX = CHUNKS_MAX * (HASH_SIZE + 8) + 4096
_MAGIC = b"APPLIANCE-INDEX 1\n"
_CHUNK_MAX = AVERAGE_MAX * 4
_SHA256 = re.compile(r"[0-9a-f]{64}")


def chunk_hash(data: bytes | memoryview) -> bytes:
    """A chunk's name."""
    return hashlib.sha256(data).digest()[:HASH_SIZE]


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """Arrays, not objects: a large payload has many chunks."""

    length: int
    sha256: str
    average: int
    layout: str
    pack_length: int
    lengths: array[int]
    stored: array[int]  # as they lie in the pack; 0: the same as an earlier one
    hashes: bytes
    positions: array[int] = field(init=False)  # in the file
    offsets: array[int] = field(init=False)  # in the pack
    first: array[int] = field(init=False)  # the number of the first chunk that is the same

    def __post_init__(self) -> None:
        positions, offsets, first = array("Q"), array("Q"), array("I")
        position = offset = 0
        seen: dict[bytes, int] = {}
        for number, length in enumerate(self.lengths):
            earlier = seen.setdefault(self.hash(number), number)
            stored = self.stored[number]
            positions.append(position)
            offsets.append(offset if stored else offsets[earlier] if earlier != number else offset)
            first.append(earlier)
            position, offset = position + length, offset + stored
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "first", first)

    def __len__(self) -> int:
        return len(self.lengths)

    def hash(self, number: int) -> bytes:
        """The chunk's name."""
        return self.hashes[number * HASH_SIZE : (number + 1) * HASH_SIZE]

    def places(self) -> dict[bytes, list[int]]:
        """Every chunk's name, and the numbers of all that are it."""
        found: dict[bytes, list[int]] = {}
        for number in range(len(self)):
            found.setdefault(self.hash(number), []).append(number)
        return found

    def stored_length(self, number: int) -> int:
        """Of a chunk in the pack, an earlier one's when it is the same."""
        return self.stored[number] or self.stored[self.first[number]]


def format_index(index: Index) -> bytes:
    """The index as it is signed."""
    about = {
        "average": index.average, "chunks": len(index), "layout": index.layout, "length": index.length,
        "pack_length": index.pack_length, "sha256": index.sha256,
    }  # fmt: skip
    table = _little(index.lengths) + _little(index.stored) + index.hashes
    packed = zstandard.ZstdCompressor(level=19).compress(table)
    return _MAGIC + json.dumps(about, sort_keys=True).encode() + b"\n" + packed


def parse_index(data: bytes, *, file: str) -> Index:
    """The index in these bytes. Raises InputError when it contradicts itself: the publisher must mend it."""
    try:
        return _parse(data)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, zstandard.ZstdError) as exc:
        said = str(exc) or type(exc).__name__
        raise InputError(f"cannot read index {file}: {said}", where=file) from exc


def _parse(data: bytes) -> Index:
    if not data.startswith(_MAGIC):
        raise ValueError("it does not begin as an index does")
    line, _, packed = data[len(_MAGIC) :].partition(b"\n")
    about = json.loads(line)
    count, length, average, pack_length = (
        _whole(about[name]) for name in ("chunks", "length", "average", "pack_length")
    )
    layout, sha256 = str(about["layout"]), str(about["sha256"])
    if layout not in ("file", "pack") or not _SHA256.fullmatch(sha256) or not AVERAGE_MIN <= average <= AVERAGE_MAX:
        raise ValueError("its first line is wrong")
    if not 1 <= count <= CHUNKS_MAX:
        raise ValueError(f"it has {count} chunks; allowed are 1 to {CHUNKS_MAX}")
    size = count * (HASH_SIZE + 8)
    # Not more than it may have is unpacked, whatever the frame says.
    table = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed).read(size + 1)
    if len(table) != size:
        raise ValueError(f"its table is not the {size} bytes of {count} chunks")
    index = Index(
        length=length, sha256=sha256, average=average, layout=layout, pack_length=pack_length,
        lengths=_array(table[: count * 4]), stored=_array(table[count * 4 : count * 8]), hashes=table[count * 8 :],
    )  # fmt: skip
    _check(index)
    return index


def _check(index: Index) -> None:
    if sum(index.lengths) != index.length or sum(index.stored) != index.pack_length:
        raise ValueError("its chunks do not add up to its lengths")
    for number, (length, stored) in enumerate(zip(index.lengths, index.stored, strict=True)):
        same = index.first[number]
        if not 0 < length <= _CHUNK_MAX or stored > length or length != index.lengths[same]:
            raise ValueError(f"chunk {number} has a wrong length")
        if not stored and same == number:
            raise ValueError(f"chunk {number} lies nowhere")
    if index.layout == "file" and index.lengths != index.stored:
        raise ValueError("its chunks do not lie one after the other")


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no length")
    return value


def _little(numbers: Iterable[int]) -> bytes:
    made = array("I", numbers)
    if sys.byteorder != "little":
        made.byteswap()
    return made.tobytes()


def _array(data: bytes) -> array[int]:
    made = array("I")
    made.frombytes(data)
    if sys.byteorder != "little":
        made.byteswap()
    return made
