"""The log of one unit: ``current`` and the pieces cut off it, ``00000001.log`` and on, oldest first.

The unit never waits for it: what a full disk does not take is dropped and counted. No fsync: a power cut may cost the
last seconds of a log, never a unit's time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from appliance.errors import ApplianceError
from appliance.host import clock, files, logfiles
from appliance.units.log_text import LINE_BYTES_MAX, split_line, stamp_lines
from appliance.units.pictures import LogLine

_FILE_BYTES_MAX = 1 << 20
_READ_BYTES = 64 << 10
_CURRENT = "current"


class Journal:
    """Appends from one side, any number of readers on the other; they share nothing but the files and a bell."""

    def __init__(self, directory: str, *, limit: int) -> None:
        self.directory = directory
        self.limit = limit
        self.dropped = 0
        self.sequence = 0  # the number that ``current`` gets when it is cut; 0: not looked yet
        self._size = 0
        self._column = -1
        self._room_made = False
        self._readers = trio.lowlevel.ParkingLot()

    @property
    def current(self) -> str:
        """The file that grows."""
        return f"{self.directory}/{_CURRENT}"

    def append(self, data: bytes) -> None:
        """Write a piece of output, as it came from the pipe. Never raises, never waits for a reader."""
        self._open()
        text, column = stamp_lines(data, clock.timestamp(clock.wall_seconds()), self._column)
        taken = logfiles.append(self.current, text)
        if taken < len(text):
            self.dropped += min(len(data), len(text) - taken)
            self._room_made = False  # look anew, at the end of the file too
        self._size += taken
        self._column = column
        if self._size >= min(_FILE_BYTES_MAX, max(self.limit // 4, 4096)) and column < 0:
            self._cut()
        self._readers.unpark_all()

    def sequences(self) -> list[int]:
        """Numbers of the pieces that are there, oldest first."""
        try:
            names = files.list_directory(self.directory)
        except ApplianceError:
            return []
        return [int(name[:-4]) for name in names if name.endswith(".log") and name[:-4].isdecimal()]

    def piece(self, sequence: int) -> str:
        """The file of that number, whether cut already or not."""
        return f"{self.directory}/{sequence:08}.log" if sequence < self.next_sequence() else self.current

    def next_sequence(self) -> int:
        """As ``sequence``, looked up first if need be."""
        if self.sequence == 0:
            self.sequence = max(self.sequences(), default=0) + 1
        return self.sequence

    async def wait_grown(self) -> None:
        """Until something was appended."""
        await self._readers.park()

    def _open(self) -> None:
        if self._room_made:
            return
        try:
            files.make_directory(self.directory, mode=0o750)
        except ApplianceError:
            return  # the append will fail and count
        self._size, last = logfiles.size_and_last_byte(self.current)
        self._column = -1 if last in (b"", b"\n") else 0
        self.next_sequence()
        self._room_made = True

    def _cut(self) -> None:
        if not logfiles.cut(self.current, f"{self.directory}/{self.sequence:08}.log"):
            return
        self.sequence += 1
        self._size, self._column = 0, -1
        total = 0
        for sequence in reversed(self.sequences()):
            path = f"{self.directory}/{sequence:08}.log"
            try:
                total += files.file_stat(path).size
                if total > self.limit - min(_FILE_BYTES_MAX, self.limit // 4):
                    files.remove(path)
            except ApplianceError:
                continue


async def read_journal(
    journal: Journal, *, lines: int | None = None, since: float | None = None, follow: bool = False
) -> AsyncIterator[LogLine]:
    """Oldest first. A slow reader holds a file open, nothing else; pieces that are gone by then are missed."""
    first_time = clock.timestamp(since) if since is not None else ""
    sequence, offset = _first_position(journal, lines)
    rest = b""
    while True:
        try:
            reader = logfiles.LogReader(journal.piece(sequence))
        except ApplianceError:  # trimmed away, or nothing was written yet
            later = [one for one in journal.sequences() if one > sequence]
            if later or sequence < journal.next_sequence():
                sequence, offset, rest = (later[0] if later else journal.next_sequence()), 0, b""
                continue
            if not follow:
                return
            await journal.wait_grown()
            continue
        try:
            while True:
                data = reader.read(offset, _READ_BYTES)
                if data:
                    offset += len(data)
                    *whole, rest = (rest + data).split(b"\n")
                    for line in whole:
                        time, text = split_line(line)
                        if time >= first_time:
                            yield LogLine(time, text)
                    await trio.lowlevel.checkpoint()
                elif journal.next_sequence() > sequence:
                    break  # it was cut: nothing more comes into this one
                elif follow:
                    await journal.wait_grown()
                else:
                    if rest:
                        time, text = split_line(rest)
                        if time >= first_time:
                            yield LogLine(time, text)
                    return
        finally:
            reader.close()
        if rest:
            time, text = split_line(rest)
            yield LogLine(time, text)
        sequence, offset, rest = sequence + 1, 0, b""


def _first_position(journal: Journal, lines: int | None) -> tuple[int, int]:
    """The piece and the byte where the last so many lines begin."""
    sequences = [*journal.sequences(), journal.next_sequence()]
    if lines is None:
        return sequences[0], 0
    wanted = lines
    sequence = sequences[-1]
    for sequence in reversed(sequences):
        try:
            reader = logfiles.LogReader(journal.piece(sequence))
        except ApplianceError:
            continue
        try:
            end = reader.size()
            if wanted <= 0:
                return sequence, end
            at = end
            while at > 0:
                size = min(_READ_BYTES, at)
                at -= size
                data = reader.read(at, size)
                if at + size == end and data.endswith(b"\n"):
                    data = data[:-1]  # the last line's own end starts no further line
                found = data.count(b"\n")
                if found >= wanted:
                    place = len(data)
                    for _ in range(wanted):
                        place = data.rindex(b"\n", 0, place)
                    return sequence, at + place + 1
                wanted -= found
            wanted -= 1 if end else 0
            if wanted <= 0:
                return sequence, 0
        finally:
            reader.close()
    return sequence, 0


assert LINE_BYTES_MAX < _READ_BYTES, "a line fits into one read"
