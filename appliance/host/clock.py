"""What time it is. Pure code is told the time; it never asks."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def wall_seconds() -> float:
    """Seconds since 1970 by the host's clock, which nobody should trust (design, law 3)."""
    return time.time()


def monotonic_seconds() -> float:
    """Seconds that only go forward, since an unknown moment of this boot (CLOCK_MONOTONIC)."""
    return time.monotonic()


def boot_seconds() -> float:
    """Seconds since boot, sleep included (CLOCK_BOOTTIME); /proc/PID/stat's start times count from here."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The kernel's name for this boot; empty where /proc does not tell (random(4))."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def machine_id() -> str:
    """The host's own, which lasts (machine-id(5)); empty where it has none."""
    try:
        with open("/etc/machine-id") as file:
            return file.read().strip()
    except OSError:
        return ""


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def http_date(seconds: float) -> str:
    """As a Date header says it (RFC 9110, 5.6.7)."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))


def sleep(seconds: float) -> None:
    """Block this thread: for short-lived children, never for the daemon."""
    time.sleep(seconds)
