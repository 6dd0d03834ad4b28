"""What runs in a unit, for people: pid, parent, command line (proc(5))."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_COMMAND_MAX = 400


@dataclass(frozen=True, kw_only=True)
class ProcessPicture:
    """One process, as of now."""

    pid: int
    parent: int
    command: str


def processes_of(pids: Iterable[int]) -> tuple[ProcessPicture, ...]:
    """Those that still are, by pid."""
    found = []
    for pid in sorted(set(pids)):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                stat = file.read().decode(errors="replace")
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read(_COMMAND_MAX).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        parent = int(rest.split()[1])
        found.append(ProcessPicture(pid=pid, parent=parent, command=words or f"[{name}]"))
    return tuple(found)
