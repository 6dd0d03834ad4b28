"""A unit's raw output into lines with times, and back. Pure.

A line is ``2026-11-22T03:22:11.123Z text``. What comes without a newline is written at once and goes on in the same
line when the rest comes, so nothing waits in memory: a killed daemon loses no byte. Bytes are kept as they came.
"""

from __future__ import annotations

import re

STAMP_BYTES = 25  # with the blank
LINE_BYTES_MAX = 16 << 10
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


def stamp_lines(data: bytes, time: str, column: int) -> tuple[bytes, int]:
    """What to append to the file, and the column it ends in. ``column``: bytes of text in the file's last line so far,
    or -1 at the start of a line. Lines longer than LINE_BYTES_MAX are cut into several.
    """
    if not data:
        return b"", column
    stamp = time.encode() + b" "
    longest = LINE_BYTES_MAX - max(column, 0)
    if len(data) > longest and _has_long_line(data, longest):
        data, column_at_cut = _cut_long_lines(data, column)
    else:
        column_at_cut = -1
    ends = data.endswith(b"\n")
    body = data[:-1] if ends else data
    text = (stamp if column < 0 else b"") + body.replace(b"\n", b"\n" + stamp) + (b"\n" if ends else b"")
    if ends:
        return text, -1
    if column_at_cut >= 0:
        return text, column_at_cut
    newline = data.rfind(b"\n")
    return text, len(data) - newline - 1 if newline >= 0 else max(column, 0) + len(data)


def split_line(line: bytes) -> tuple[str, str]:
    """Time and text of a line of the file, without its newline; bytes that are not UTF-8 show as their hex."""
    if _STAMP.match(line):
        return line[: STAMP_BYTES - 1].decode(), line[STAMP_BYTES:].decode(errors="backslashreplace")
    return "", line.decode(errors="backslashreplace")


def _has_long_line(data: bytes, first_max: int) -> bool:
    at, allowed = 0, first_max
    while len(data) - at > allowed:
        newline = data.rfind(b"\n", at, at + allowed + 1)
        if newline < 0:
            return True
        at, allowed = newline + 1, LINE_BYTES_MAX
    return False


def _cut_long_lines(data: bytes, column: int) -> tuple[bytes, int]:
    pieces: list[bytes] = []
    column = max(column, 0)
    for line in _split_keeping_ends(data):
        rest = line
        while len(rest.removesuffix(b"\n")) > LINE_BYTES_MAX - column:
            pieces += (rest[: LINE_BYTES_MAX - column], b"\n")
            rest = rest[LINE_BYTES_MAX - column :]
            column = 0
        pieces.append(rest)
        column = 0 if rest.endswith(b"\n") else column + len(rest)
    return b"".join(pieces), column


def _split_keeping_ends(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
