"""The index of a release, and its pack: made when the release is added, checked as a host would read them."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import ConflictError, UntrustedError
from appliance.host import files
from appliance.host.slots import RealSlotCalls, reading
from appliance.payload import (
    INDEX_SIZE_MAX,
    INDEXED_FROM_BYTES,
    Packer,
    average_for,
    chunk_hash,
    cut,
    format_index,
    parse_index,
    plain,
)

INDEX, PACK = ".index", ".pack"  # endings of a release's path
_WRITE_BYTES = 4 << 20


@dataclass(frozen=True)
class Part:
    """One file of a release as it is signed and served. ``suffix``: what its path has behind the release's."""

    suffix: str
    sha256: str
    length: int


def make_parts(file: str, *, sha256: str, length: int, layout: str, folder: str) -> tuple[Part, ...]:
    """Write index (and pack) into the folder, each named for its sha256. Nothing for a small file.

    Raises ConflictError when the file is not what it was.
    """
    if length < INDEXED_FROM_BYTES:
        return ()
    calls = RealSlotCalls()
    average = average_for(length)
    packer = Packer(layout, average)
    temp, written = f"{folder}/packing", 0
    calls.remove(temp)
    pending = bytearray()
    with reading(file) as source:
        for _, chunk in cut(source.at, length, average=average):
            stored = packer.add(chunk)
            if layout == "pack":
                pending += stored
                if len(pending) >= _WRITE_BYTES:
                    calls.write_at(temp, written, bytes(pending))
                    written += len(pending)
                    pending.clear()
    index = packer.index()
    if (index.sha256, index.length) != (sha256, length):
        calls.remove(temp)
        raise ConflictError(f"cannot index {file}: it changed while it was read", where=file)
    parts: list[Part] = []
    if layout == "pack":
        calls.write_at(temp, written, bytes(pending))
        calls.sync(temp)
        parts.append(_settle(calls, temp, folder, PACK))
    calls.remove(temp)
    calls.write_at(temp, 0, format_index(index))
    calls.sync(temp)
    parts.append(_settle(calls, temp, folder, INDEX))
    return tuple(parts)


def _settle(calls: RealSlotCalls, temp: str, folder: str, suffix: str) -> Part:
    sha256, length = files.sha256_file(temp), files.file_stat(temp).size
    calls.rename(temp, f"{folder}/{sha256}")
    return Part(suffix, sha256, length)


def check_parts(*, index_file: str, pack_file: str, sha256: str, length: int) -> None:
    """Every chunk lies where the index says, and is what it says. Raises UntrustedError, InputError."""
    index = parse_index(files.read_bytes(index_file, size_max=INDEX_SIZE_MAX), file=index_file)
    if (index.sha256, index.length) != (sha256, length):
        raise UntrustedError(f"cannot verify {index_file}: it is the index of another file", where=index_file)
    with reading(pack_file) as pack:
        for number in range(len(index)):
            offset, stored = index.offsets[number], index.stored_length(number)
            chunk = plain(pack.at(offset, stored), index.lengths[number])
            if chunk is None or chunk_hash(chunk) != index.hash(number):
                raise UntrustedError(
                    f"cannot verify {pack_file}: chunk {number} (byte {offset}) is not what was signed", where=pack_file
                )
