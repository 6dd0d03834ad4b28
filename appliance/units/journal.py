"""The log of one unit: ``current`` and the pieces cut off it, ``00000001.log`` and on, oldest first; packed once cut.

The unit never waits for it: what a full disk does not take is dropped and counted, as is what comes faster than the
unit's rate. No fsync: a power cut may cost the last seconds of a log, never a unit's time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appliance.errors import ApplianceError
from appliance.host import clock, files, logfiles
from appliance.units.invocations import note
from appliance.units.log_rate import RateGate
from appliance.units.log_section import Rate
from appliance.units.log_text import stamp_lines

_FILE_BYTES_MAX = 1 << 20
_CURRENT = "current"
_PACK_FROM_BYTES = 4 << 10


class Growth:
    """Where those listen who follow logs: one for all journals."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[str], None]] = []  # told the directory of the journal that grew


@dataclass(frozen=True)
class LogLimits:
    """How much of a log is kept."""

    size: int  # bytes on disk
    age: float | None = None  # seconds
    rate: Rate | None = None


class Journal:
    """Appends from one side, any number of readers on the other; they share nothing but the files and a bell."""

    __slots__ = (
        "_age_due", "_column", "_gate", "_limits", "_noted", "_room_made", "_size", "_stream", "directory", "dropped",
        "dropped_lines", "growth", "sequence",
    )  # fmt: skip

    def __init__(
        self, directory: str, *, limit: int = 0, limits: LogLimits | None = None, growth: Growth | None = None
    ) -> None:
        self.directory = directory
        self.dropped = 0  # bytes that the disk did not take
        self.dropped_lines = 0  # by the rate
        self.sequence = 0  # the number that ``current`` gets when it is cut; 0: not looked yet
        self._limits = limits or LogLimits(limit)
        self._gate: RateGate | None = None  # made when something is written
        self.growth = growth if growth is not None else Growth()
        self._size = 0
        self._column = -1
        self._stream = ""  # of the line that has no end yet
        self._noted = ""  # the start of the unit that wrote last
        self._room_made = False
        self._age_due = 0.0

    @property
    def current(self) -> str:
        """The file that grows."""
        return f"{self.directory}/{_CURRENT}"

    @property
    def oldest_seconds(self) -> float | None:
        """Lines from before that moment are over their age."""
        return clock.wall_seconds() - self._limits.age if self._limits.age is not None else None

    def keep(self, limits: LogLimits) -> None:
        """From now on."""
        if limits.rate != self._limits.rate:
            self._gate = None
        self._limits = limits

    def append(self, data: bytes, *, stream: str = "", invocation: str = "") -> None:
        """Write a piece of output, as it came from the pipe. Never raises, never waits for a reader."""
        if (rate := self._limits.rate) is not None:
            if self._gate is None:
                self._gate = RateGate(rate)
            lost = self._gate.lost_bytes
            data = self._gate.take(data, clock.monotonic_seconds())
            if not data:
                return
            if lost:  # and now lines pass again
                self._report()
        seconds = clock.wall_seconds()
        if invocation and invocation != self._noted:
            self._noted = invocation
            self._open()
            note(self.directory, clock.timestamp(seconds), invocation)
        self._write(data, seconds, stream)
        self._tell()

    def append_at(self, data: bytes, seconds: float) -> None:
        """As ``append``, of what was said at that time."""
        self._write(data, seconds)
        self._tell()

    def settle(self) -> None:
        """Nothing more comes for now: say what was dropped."""
        if self._gate is not None and self._gate.lost_bytes:
            self._report()
            self._tell()

    def sequences(self) -> list[int]:
        """Numbers of the pieces that are there, oldest first."""
        try:
            names = files.list_directory(self.directory)
        except ApplianceError:
            return []
        stems = {name.removesuffix(logfiles.PACKED) for name in names}
        return sorted(int(name[:-4]) for name in stems if name.endswith(".log") and name[:-4].isdecimal())

    def piece(self, sequence: int) -> str:
        """The file of that number (packed, perhaps), whether cut already or not."""
        return self._piece(sequence) if sequence < self.next_sequence() else self.current

    def next_sequence(self) -> int:
        """As ``sequence``, looked up first if need be."""
        if self.sequence == 0:
            self.sequence = max(self.sequences(), default=0) + 1
        return self.sequence

    def _report(self) -> None:
        assert self._gate is not None
        self.dropped_lines += self._gate.lost_lines
        end = b"\n" if self._column >= 0 else b""
        self._write(end + b"<4>appliance: " + self._gate.report().encode() + b"\n", clock.wall_seconds())

    def _write(self, data: bytes, seconds: float, stream: str = "") -> None:
        self._open()
        cut = b""
        if stream != self._stream:
            if self._column >= 0:  # the other one's line is cut here: two in one would be nobody's
                cut, self._column = b"\n", -1
            self._stream = stream
        text, column = stamp_lines(data, clock.timestamp(seconds), self._column, stream)
        text = cut + text
        piece_max = min(_FILE_BYTES_MAX, max(self._limits.size // 4, 4096))
        if self._size + len(text) >= piece_max and column >= 0 and (end := text.rfind(b"\n") + 1):
            self._put(text[:end], len(data))  # an endless line must not keep the file from being cut
            self._cut()
            text = text[end:]
        self._put(text, len(data))
        self._column = column
        if self._size >= piece_max and column < 0:
            self._cut()
        elif self._limits.age is not None and clock.monotonic_seconds() >= self._age_due:
            self._forget_old()

    def _put(self, text: bytes, size: int) -> None:
        taken = logfiles.append(self.current, text)
        if taken < len(text):
            self.dropped += min(size, len(text) - taken)
            self._room_made = False  # look anew, at the end of the file too
        self._size += taken

    def _tell(self) -> None:
        for listener in self.growth.listeners:
            listener(self.directory)

    def _piece(self, sequence: int) -> str:
        return f"{self.directory}/{sequence:08}.log"

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
        path = self._piece(self.sequence)
        if not logfiles.cut(self.current, path):
            return
        if self._size >= _PACK_FROM_BYTES:
            logfiles.pack(path)
        self.sequence += 1
        self._size, self._column = 0, -1
        self._trim()

    def _trim(self) -> None:
        total, oldest = 0, self.oldest_seconds
        for sequence in reversed(self.sequences()):
            path = self._piece(sequence)
            both = (path, path + logfiles.PACKED)
            for one in both:
                size, written = logfiles.size_and_time(one)
                total += size
                if not written or not (
                    total > self._limits.size - min(_FILE_BYTES_MAX, self._limits.size // 4)
                    or (oldest is not None and written < oldest)
                ):
                    continue
                try:
                    files.remove(one)
                except ApplianceError:
                    continue

    def _forget_old(self) -> None:
        """Cut before it is too old in part, so that no more than an eighth over the age stays on the disk."""
        first = self._age_due == 0.0
        self._age_due = clock.monotonic_seconds() + (self._limits.age or 0.0) / 8
        if self._size and self._column < 0 and not first:
            self._cut()
        else:
            self._trim()
