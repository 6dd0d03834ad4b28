"""Time zones: the host's files, else those that came along in PyPI's tzdata."""

from __future__ import annotations

import functools
import os
from datetime import UTC, tzinfo

_LOCAL = "/etc/localtime"


def find_zone(name: str) -> tzinfo | None:
    """By its name in the time zone database; "" is the host's own. None when there is no such zone."""
    if name.upper() == "UTC":
        return UTC
    return _zone(name) if name else local_zone()


def local_zone() -> tzinfo:
    """What /etc/localtime says at this moment, or TZ; UTC without both."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if name and (found := _zone(name)) is not None:
        return found
    try:
        where = os.path.realpath(_LOCAL)
        stamp = os.stat(where).st_mtime_ns
    except OSError:
        return UTC
    return _local_file(where, stamp)


@functools.lru_cache(maxsize=8)
def _local_file(path: str, stamp: int) -> tzinfo:
    from zoneinfo import ZoneInfo

    name = path.partition("/zoneinfo/")[2]
    if name and (found := _zone(name)) is not None:
        return found
    try:
        with open(path, "rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return UTC


@functools.lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo | None:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        return None
    except KeyError:
        return None
