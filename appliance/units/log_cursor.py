"""Reads one journal: forward from a place on, and backward to find that place. Holds no file open between two reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.errors import ApplianceError, CorruptError
from appliance.host import logfiles
from appliance.units.invocations import Invocations
from appliance.units.journal import Journal
from appliance.units.log_query import Entry
from appliance.units.log_text import LINE_BYTES_MAX, cut_stamp, goes_on, stream_of

BLOCK_BYTES = 64 << 10
_BACK_BYTES = 32 << 10
_JOINED_BYTES_MAX = 4 << 20
_UNPACKED_KEPT = 4


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """Of the first byte of a line: in which piece, and where in it as it was before it was packed."""

    sequence: int
    offset: int


class Pieces:
    """Opens pieces; those unpacked last are kept for the next block. One for all journals that are read together."""

    def __init__(self) -> None:
        self._unpacked: OrderedDict[str, logfiles.Unpacked] = OrderedDict()

    def open(self, path: str) -> logfiles.LogReader | logfiles.Unpacked:
        """Raises NotFoundError, CorruptError."""
        if path in self._unpacked:
            self._unpacked.move_to_end(path)
            return self._unpacked[path]
        found = logfiles.open_piece(path)
        if isinstance(found, logfiles.Unpacked):
            self._unpacked[path] = found
            if len(self._unpacked) > _UNPACKED_KEPT:
                self._unpacked.popitem(last=False)
        return found


class Cursor:
    """Forward through one journal."""

    def __init__(self, journal: Journal, unit: str, pieces: Pieces, place: Place) -> None:
        self.unit = unit
        self._journal = journal
        self._pieces = pieces
        self._sequence, self._offset = place.sequence, place.offset
        self._rest = b""  # of a line that has no end yet
        self._invocations = Invocations(journal.directory)
        self._held: tuple[str, str, list[bytes]] | None = None  # a line that may go on in the next
        self._held_bytes = 0

    def read(self) -> list[Entry]:
        """The lines of the next block; empty when there is nothing more for now."""
        while True:
            try:
                piece = self._pieces.open(self._journal.piece(self._sequence))
            except CorruptError:
                self._next_piece()
                continue
            except ApplianceError:  # trimmed away, or nothing was written yet
                later = [one for one in self._journal.sequences() if one > self._sequence]
                if later or self._sequence < self._journal.next_sequence():
                    self._rest, self._offset = b"", 0
                    self._sequence = later[0] if later else self._journal.next_sequence()
                    continue
                return []
            try:
                data = piece.read(self._offset, BLOCK_BYTES)
            finally:
                piece.close()
            if data:
                self._offset += len(data)
                self._invocations.look()
                found = list(self._entries(data))
            elif self._journal.next_sequence() > self._sequence:
                found = self.flush(held=False)
                self._next_piece()
            else:
                return []
            if found:
                return found

    def flush(self, *, held: bool = True) -> list[Entry]:
        """What is there of the last line, for a reader who does not wait for its end."""
        found = []
        if self._rest:
            rest, self._rest = self._rest, b""
            found = list(self._lines([rest]))
        if held:
            found += self._release()
        return found

    def _next_piece(self) -> None:
        self._sequence, self._offset, self._rest = self._sequence + 1, 0, b""

    def _entries(self, data: bytes) -> Iterator[Entry]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        return self._lines(whole)

    def _lines(self, lines: list[bytes]) -> Iterator[Entry]:
        for line in lines:
            time, text = cut_stamp(line)
            if self._held is not None and goes_on(line) and self._held_bytes + len(text) <= _JOINED_BYTES_MAX:
                self._held[2].append(text)
                self._held_bytes += len(text)
            else:
                yield from self._release()
                self._held, self._held_bytes = (time, stream_of(line), [text]), len(text)
            if len(text) != LINE_BYTES_MAX:
                yield from self._release()

    def _release(self) -> list[Entry]:
        if self._held is None:
            return []
        (time, stream, parts), self._held = self._held, None
        return [Entry(time, self.unit, b"".join(parts), stream, self._invocations.at(time))]


def newest_first(journal: Journal, unit: str, pieces: Pieces) -> Iterator[tuple[Entry, Place]]:
    """The lines from the end on, each with its place."""
    parts: list[bytes] = []
    invocations = Invocations(journal.directory)
    invocations.look()
    later = ""  # for a line without a time: it was not written after that
    for sequence in reversed([*journal.sequences(), journal.next_sequence()]):
        try:
            piece = pieces.open(journal.piece(sequence))
        except ApplianceError:
            continue
        try:
            at, rest, last = piece.size(), b"", True
            while at > 0:
                size = min(_BACK_BYTES, at)
                at -= size
                block = piece.read(at, size) + rest
                end = at + len(block)
                lines = block.split(b"\n")
                if last and not lines[-1]:  # the end of the last line begins no further one
                    lines.pop()
                    end -= 1
                last = False
                first = 1 if at else 0
                rest = lines[0]
                for line in reversed(lines[first:]):
                    begin = end - len(line)
                    end = begin - 1
                    time, text = cut_stamp(line)
                    parts.append(text)
                    if goes_on(line):
                        continue
                    later = time or later
                    data = b"".join(reversed(parts))
                    yield Entry(later, unit, data, stream_of(line), invocations.at(later)), Place(sequence, begin)
                    parts.clear()
        finally:
            piece.close()


def end_of(journal: Journal, pieces: Pieces) -> Place:
    """Behind its last byte, or at the beginning of its last line, when that has no end yet."""
    sequence = journal.next_sequence()
    size, last = logfiles.size_and_last_byte(journal.current)
    if last in (b"", b"\n"):
        return Place(sequence, size)
    return next((place for _, place in newest_first(journal, "", pieces)), Place(sequence, size))


def since_place(journal: Journal, pieces: Pieces, since: str) -> Place:
    """Where the newest piece begins that begins before that time. No finer: a clock may have gone back a little."""
    sequences = [*journal.sequences(), journal.next_sequence()]
    if since:
        for sequence in reversed(sequences):
            try:
                piece = pieces.open(journal.piece(sequence))
            except ApplianceError:
                continue
            try:
                time, _ = cut_stamp(piece.read(0, LINE_BYTES_MAX).partition(b"\n")[0])
            finally:
                piece.close()
            if time and time < since:
                return Place(sequence, 0)
    return Place(sequences[0], 0)
