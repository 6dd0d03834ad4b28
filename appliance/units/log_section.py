"""``[logs]`` of a unit file: how much of its output is kept. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from appliance.errors import InputError
from appliance.schema import Duration, Size, parse_duration

_RATE = re.compile(r"(\d{1,9})/(\S+)")
_SECONDS_MAX = 86400.0


@dataclass(frozen=True)
class Rate:
    """At most so many lines within each span of so many seconds."""

    burst: int
    seconds: float


def parse_rate(text: str) -> Rate | None:
    """Of "1000/10s"; None for "unlimited". Raises InputError."""
    if text == "unlimited":
        return None
    found = _RATE.fullmatch(text)
    try:
        if found is None or int(found[1]) == 0:
            raise InputError("")
        seconds = parse_duration(found[2] if found[2][0].isdigit() else f"1{found[2]}")  # "100/s" too
        if not 0 < seconds <= _SECONDS_MAX:
            raise InputError("")
    except InputError:
        wanted = 'expected lines per time, such as "1000/10s", or "unlimited"'
        raise InputError(f'found "{text}", {wanted}') from None
    return Rate(int(found[1]), seconds)


def rate_problem(text: str) -> str | None:
    """For the schema."""
    try:
        parse_rate(text)
    except InputError as error:
        return error.message
    return None


RATE = {"check": rate_problem}


@dataclass(frozen=True, kw_only=True)
class LogsSection:
    """``[logs]``; what is not said here is said in ``[units]`` of the settings."""

    limit: Size | None = field(default=None, metadata={"min": 64 << 10})  # on disk
    age: Duration | None = field(default=None, metadata={"min": 60.0})  # older lines are forgotten
    rate: str | None = field(default=None, metadata=RATE)  # what a unit writes beyond it is dropped, and counted
