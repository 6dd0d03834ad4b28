"""What /proc tells about processes that need not be ours (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The part of /proc/PID/stat that we use; ``start_ticks`` and the pid name one process of this boot for good."""

    pid: int
    state: str
    parent: int
    session: int
    start_ticks: int
    wait_status: int


def process_stat(pid: int) -> ProcessStat | None:
    """None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the command's name may hold blanks and brackets itself
    status = int(fields[49]) if len(fields) > 49 else 0
    return ProcessStat(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]), status)


def process_ids() -> Iterator[int]:
    """Every process we can see."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def has_in_environment(pid: int, entry: bytes) -> bool:
    """Whether it was started with ``NAME=value`` in its environment; False when we may not look."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            data = b""
            while piece := file.read(65536):
                data += piece
    except OSError:
        return False
    return entry in data.split(b"\0")
