"""Holds a unit's output to a rate: lines beyond it are dropped, and counted. Pure: it is told the time."""

from __future__ import annotations

from appliance.units.log_section import Rate

_BYTES_A_LINE = 1 << 10  # a long line counts once for each of these: a flood without newlines is one too


class RateGate:
    """Of one unit. Cuts only between lines."""

    __slots__ = ("_left", "_mid_line", "_open_line", "_until", "lost_bytes", "lost_lines", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.lost_lines = 0  # since the last report
        self.lost_bytes = 0
        self._left = rate.burst
        self._until = 0.0
        self._mid_line = False  # the line that is being written was dropped so far
        self._open_line = False  # the last byte let through was not the end of a line

    def take(self, data: bytes, now: float) -> bytes:
        """What of it may pass."""
        if now >= self._until or now < self._until - self.rate.seconds:
            self._left, self._until = self.rate.burst, now + self.rate.seconds
        if self._mid_line:
            end = data.find(b"\n") + 1 or len(data)
            self._lose(data[:end])
            self._mid_line = not data[:end].endswith(b"\n")
            data = data[end:]
            if not data:
                return b""
        if self._open_line and self._left <= 0:  # it began in time: its end passes, as far as it has come
            end = data.find(b"\n", 0, _BYTES_A_LINE) + 1
            passed, data = data[:end], data[end:]
            self._open_line = False
        else:
            passed = b""
        passed += self._allowed(data)
        return passed

    def _allowed(self, data: bytes) -> bytes:
        cost = max(data.count(b"\n"), len(data) // _BYTES_A_LINE, 1) if data else 0
        if cost <= self._left:
            self._left -= cost
            if data:
                self._open_line = not data.endswith(b"\n")
            return data
        end = 0
        while self._left > 0:
            newline = data.find(b"\n", end)
            if newline < 0:
                break
            self._left -= max(1, (newline - end) // _BYTES_A_LINE)
            end = newline + 1
        self._left = 0
        rest = data[end:]
        if rest:
            self._lose(rest)
            self._mid_line = not rest.endswith(b"\n")
        if end:
            self._open_line = False
        return data[:end]

    def report(self) -> str:
        """What was dropped since the last report, once lines pass again; empty when nothing was."""
        if not self.lost_bytes:
            return ""
        lines, size = self.lost_lines, self.lost_bytes
        self.lost_lines = self.lost_bytes = 0
        words = f"{lines} line{'' if lines == 1 else 's'} ({size} bytes) dropped"
        return f"{words}: more than {self.rate.burst} in {self.rate.seconds:g} s ([logs] rate)"

    def _lose(self, data: bytes) -> None:
        self.lost_lines += data.count(b"\n")
        self.lost_bytes += len(data)
