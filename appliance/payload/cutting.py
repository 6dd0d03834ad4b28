"""Cuts a file into chunks by what is in it, so that a change moves only the cuts beside it.

The publisher cuts a release so, and a host what it has: equal content gives equal chunks, wherever it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pyfastcdc import FastCDC

from appliance.errors import InputError
from appliance.payload.binary import FOOTER_SIZE, parse_footer

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> that many bytes, fewer only at the end."""
Chunk = tuple[int, bytes]
"""Where it begins, and its bytes."""

AVERAGE_MIN, AVERAGE_MAX = 1 << 10, 4 << 20
_WINDOW = 4 << 20
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"


class MalformedError(Exception):
    """These bytes are no zstd frame."""


def cut(
    read_at: ReadAt, length: int, *, average: int, parts: Iterable[tuple[int, int]] | None = None
) -> Iterator[Chunk]:
    """All of it, or these parts, in order. ``average`` is about how long chunks are; none is longer than four times it.

    A part that begins and ends where chunks do is cut as it would be with all the rest.
    """
    begin, end = _payload(read_at, length)
    for start, stop in parts if parts is not None else ((0, length),):
        yield from _cut_by_content(read_at, start, min(stop, begin), average)
        yield from _cut_by_frames(read_at, max(start, begin), min(stop, end), average)
        yield from _cut_by_content(read_at, max(start, end), stop, average)


def _payload(read_at: ReadAt, length: int) -> tuple[int, int]:
    """Where a binary's frames begin and end; nowhere when it is none."""
    try:
        footer = parse_footer(read_at(max(0, length - FOOTER_SIZE), FOOTER_SIZE), file="")
    except InputError:
        return length, length
    end = length - FOOTER_SIZE
    return (footer.offset, end) if footer.offset <= end and footer.offset + footer.packed == end else (length, length)


class _Section:
    """A part of the file as the stream that pyfastcdc reads."""

    def __init__(self, read_at: ReadAt, begin: int, end: int) -> None:
        self._read_at, self._at, self._end = read_at, begin, end

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self._read_at(self._at, min(size, self._end - self._at))
        self._at += len(data)
        return data


def _cut_by_content(read_at: ReadAt, begin: int, end: int, average: int) -> Iterator[Chunk]:
    if begin < end:
        cutter = FastCDC(average, min_size=min(average // 4, 1 << 20), max_size=average * 4)
        for chunk in cutter.cut_stream(_Section(read_at, begin, end)):
            yield begin + chunk.offset, bytes(chunk.data)


def _cut_by_frames(read_at: ReadAt, begin: int, end: int, average: int) -> Iterator[Chunk]:
    """A chunk per frame. What is no frame, or a very long one, is cut by content from there on."""
    window, start = b"", begin  # the bytes from ``start`` on
    at = begin
    while at < end:
        try:
            size = frame_length(window, at - start)
        except MalformedError:
            break
        if size is None:
            if len(window) >= _WINDOW and at == start:
                break
            window, start = read_at(at, min(_WINDOW, end - at)), at
            if frame_length_or_none(window) is None:
                break
            continue
        if size > average * 4:
            break
        yield at, window[at - start : at - start + size]
        at += size
    yield from _cut_by_content(read_at, at, end, average)


def frame_length_or_none(window: bytes) -> int | None:
    """Of the frame at the beginning; None when it is not whole or no frame."""
    try:
        return frame_length(window, 0)
    except MalformedError:
        return None


def frame_length(data: bytes, at: int) -> int | None:
    """Of the zstd frame at ``at`` (RFC 8878, 3.1.1); None when its end is not in ``data``. Raises MalformedError."""
    if len(data) - at < 5:
        return None
    if data[at : at + 4] != _FRAME_MAGIC:
        raise MalformedError
    descriptor = data[at + 4]
    single = descriptor >> 5 & 1
    size_field = (single, 2, 4, 8)[descriptor >> 6]
    end = at + 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_field
    while True:
        if len(data) < end + 3:
            return None
        block = int.from_bytes(data[end : end + 3], "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        if kind == 3:
            raise MalformedError
        end += 3 + (1 if kind == 1 else size)
        if last:
            break
    end += 4 * (descriptor >> 2 & 1)
    return end - at if end <= len(data) else None
