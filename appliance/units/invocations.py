"""Which start of a unit wrote a line: the journal notes when each was first heard, in a file beside its pieces.

A line of that file is ``TIME ID``; a line of the log is of the last one noted not after it. So the log itself stays as
it is, and costs nothing more.
"""

from __future__ import annotations

from bisect import bisect_right

from appliance.errors import ApplianceError
from appliance.host import files, logfiles

_FILE = "invocations"
_BYTES_MAX = 64 << 10
_SHORTEST = 4  # letters of an ID that may stand for it


def note(directory: str, time: str, invocation: str) -> None:
    """It is heard from now on, unless it was heard last already. What cannot be written is done without."""
    path = f"{directory}/{_FILE}"
    line = f"{time} {invocation}\n".encode()
    end = logfiles.last_bytes(path, len(invocation) + 1)
    if end == line[-len(end) :] and end:
        return
    logfiles.append(path, line)
    try:
        if files.file_stat(path).size > _BYTES_MAX:
            kept = files.read_bytes(path)[-_BYTES_MAX // 2 :].partition(b"\n")[2]
            files.write_atomic(path, kept, mode=0o640, durable=False)
    except ApplianceError:
        pass


class Invocations:
    """Those of one journal, as last read."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/{_FILE}"
        self._seen = (0, 0.0)
        self._times: list[str] = []
        self._names: list[str] = []

    def look(self) -> None:
        """Read them again if there are more."""
        seen = logfiles.size_and_time(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            lines = files.read_bytes(self._path, size_max=2 * _BYTES_MAX).decode(errors="replace").splitlines()
        except ApplianceError:
            lines = []
        pairs = [line.split(" ") for line in lines if line.count(" ") == 1]
        self._times = [time for time, _ in pairs]
        self._names = [name for _, name in pairs]

    def at(self, time: str) -> str:
        """The one that wrote at that time; empty when that is not known."""
        number = bisect_right(self._times, time)
        return self._names[number - 1] if number else ""

    def find(self, word: str) -> str:
        """By its ID or the first letters of that; 0 is the last one heard, -1 the one before. Empty: there is none."""
        if word.removeprefix("-").isdecimal() and len(word) < _SHORTEST:
            back = -abs(int(word)) - 1
            return self._names[back] if len(self._names) >= -back else ""
        same = [name for name in self._names if name.startswith(word.lower())]
        return same[-1] if same and len(word) >= _SHORTEST else ""
