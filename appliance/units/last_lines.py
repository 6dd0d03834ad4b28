"""The last few lines of a unit's log, for whoever asks why it is not well: one short read, no waiting."""

from __future__ import annotations

from appliance.errors import ApplianceError
from appliance.host import logfiles
from appliance.units.journal import Journal
from appliance.units.log_text import split_line

_BYTES = 4096
_LINES = 5


def last_lines(journal: Journal) -> tuple[str, ...]:
    """Oldest first, without their times; of the newest piece only. Empty when nothing can be read."""
    try:
        reader = logfiles.LogReader(journal.current)
    except ApplianceError:
        return ()
    try:
        end = reader.size()
        start = max(0, end - _BYTES)
        lines = reader.read(start, end - start).split(b"\n")
    finally:
        reader.close()
    whole = lines[1:] if start else lines
    return tuple(split_line(line)[1] for line in whole if line)[-_LINES:]
