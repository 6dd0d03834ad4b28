"""What this process itself uses (proc(5), getrusage(2)). Where /proc is not mounted, what is known without it."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping


def own_usage() -> Mapping[str, float]:
    """resident_bytes, cpu_seconds, open_descriptors, descriptors_max, threads; what cannot be known is missing."""
    times = resource.getrusage(resource.RUSAGE_SELF)
    found: dict[str, float] = {"cpu_seconds": times.ru_utime + times.ru_stime}
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        found["descriptors_max"] = soft
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            found["resident_bytes"] = int(file.read(200).split()[1]) * os.sysconf("SC_PAGE_SIZE")
        found["open_descriptors"] = len(os.listdir("/proc/self/fd"))
        found["threads"] = len(os.listdir("/proc/self/task"))
    except OSError:
        pass  # no /proc: the memory's high water is all there is
    found.setdefault("resident_bytes", times.ru_maxrss * 1024)
    return found
