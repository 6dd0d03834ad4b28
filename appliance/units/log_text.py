"""A unit's raw output into lines with times, and back. Pure.

A line is ``2026-11-22T03:22:11.123Z text``. What comes without a newline is written at once and goes on in the same
line when the rest comes, so nothing waits in memory: a killed daemon loses no byte. Bytes are kept as they came. A
line that is too long is cut; what goes on from the line before has a ``+`` in place of the blank. Of a unit whose
stdout and stderr are told apart, ``>`` and ``!`` stand there.
"""

from __future__ import annotations

import re

STAMP_BYTES = 25  # with the blank
LINE_BYTES_MAX = 16 << 10
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z[ +>!]")
_PRIORITY = re.compile(rb"<(\d{1,3})>")
_GOES_ON = 0x2B  # +
_SIGNS = {"": b" ", "stdout": b">", "stderr": b"!"}
_STREAMS = {0x3E: "stdout", 0x21: "stderr"}


def stamp_lines(data: bytes, time: str, column: int, stream: str = "") -> tuple[bytes, int]:
    """What to append to the file, and the column it ends in. ``column``: bytes of text in the file's last line so far,
    or -1 at the start of a line. Lines longer than LINE_BYTES_MAX are cut into several.
    """
    if not data:
        return b"", column
    stamp = time.encode() + _SIGNS[stream]
    longest = LINE_BYTES_MAX - max(column, 0)
    if len(data) > longest and _has_long_line(data, longest):
        return _stamp_long_lines(data, stamp, column)
    ends = data.endswith(b"\n")
    body = data[:-1] if ends else data
    text = (stamp if column < 0 else b"") + body.replace(b"\n", b"\n" + stamp) + (b"\n" if ends else b"")
    if ends:
        return text, -1
    newline = data.rfind(b"\n")
    return text, len(data) - newline - 1 if newline >= 0 else max(column, 0) + len(data)


def split_line(line: bytes) -> tuple[str, str]:
    """Time and text of a line of the file, without its newline; bytes that are not UTF-8 show as their hex."""
    time, data = cut_stamp(line)
    return time, data.decode(errors="backslashreplace")


def cut_stamp(line: bytes) -> tuple[str, bytes]:
    """Time (empty when it has none) and what was written."""
    if _STAMP.match(line):
        return line[: STAMP_BYTES - 1].decode(), line[STAMP_BYTES:]
    return "", line


def stream_of(line: bytes) -> str:
    """Where it was written to, where that is known."""
    return _STREAMS.get(line[STAMP_BYTES - 1], "") if len(line) >= STAMP_BYTES and _STAMP.match(line) else ""


def goes_on(line: bytes) -> bool:
    """Whether it is the rest of the line before."""
    return len(line) >= STAMP_BYTES and line[STAMP_BYTES - 1] == _GOES_ON and _STAMP.match(line) is not None


def split_priority(data: bytes) -> tuple[int | None, bytes]:
    """The level that a line begins with, as sd-daemon(3): ``<3>`` is an error. Facilities are left aside."""
    found = _PRIORITY.match(data) if data[:1] == b"<" else None
    if found is None or int(found[1]) > 191:
        return None, data
    return int(found[1]) & 7, data[found.end() :]


def _has_long_line(data: bytes, first_max: int) -> bool:
    at, allowed = 0, first_max
    while len(data) - at > allowed:
        newline = data.rfind(b"\n", at, at + allowed + 1)
        if newline < 0:
            return True
        at, allowed = newline + 1, LINE_BYTES_MAX
    return False


def _stamp_long_lines(data: bytes, stamp: bytes, column: int) -> tuple[bytes, int]:
    cut = b"\n" + stamp[:-1] + b"+"
    pieces: list[bytes] = []
    for line in _split_keeping_ends(data):
        if column < 0:
            pieces.append(stamp)
            column = 0
        ends = line.endswith(b"\n")
        rest = line[:-1] if ends else line
        while len(rest) > LINE_BYTES_MAX - column:
            pieces += (rest[: LINE_BYTES_MAX - column], cut)
            rest = rest[LINE_BYTES_MAX - column :]
            column = 0
        pieces.append(rest)
        column += len(rest)
        if ends:
            pieces.append(b"\n")
            column = -1
    return b"".join(pieces), column


def _split_keeping_ends(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
