"""Durations and sizes as people write them: "500ms", "1h30m", "256M". Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

from appliance.errors import InputError

_SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_MICROSECONDS = {"w": 604_800_000_000, "d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000,
                 "ms": 1_000, "us": 1}  # fmt: skip
_OTHER_NAMES = {
    "week": "w", "weeks": "w", "day": "d", "days": "d", "hour": "h", "hours": "h", "hr": "h", "hrs": "h",
    "min": "m", "mins": "m", "minute": "m", "minutes": "m", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "msec": "ms", "millis": "ms", "milliseconds": "ms", "millisecond": "ms", "usec": "us", "µs": "us",
    "microsecond": "us", "microseconds": "us",
}  # fmt: skip
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_DURATION = re.compile(r"(?:\d{1,18}(?:\.\d{1,9})?(?:us|ms|[wdhms]))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|[wdhms])")
_DURATION_LOOSE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµ]*)")
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)([KMGTP]?)")
_SIZE_LOOSE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?b(?:ytes?)?)?", re.IGNORECASE)
DURATION_MAX = 36500 * 86400.0
SIZE_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class Quantity:
    """The mark inside ``Annotated`` that tells the reader how a number is written."""

    kind: str
    infinity: bool = False


Duration = Annotated[float, Quantity("duration")]
DurationOrInfinity = Annotated[float, Quantity("duration", infinity=True)]
Size = Annotated[int, Quantity("size")]


def parse_duration(text: str, *, infinity: bool = False) -> float:
    """Seconds. Raises InputError saying what is wanted, with the nearest good spelling when there is one."""
    if infinity and text == "infinity":
        return math.inf
    if text == "0":
        return 0.0
    allowed = ' or "infinity"' if infinity else ""
    if not _DURATION.fullmatch(text):
        raise InputError(f'expected a duration such as "{_nearest_duration(text)}"{allowed}')
    total, smallest = 0.0, math.inf
    for number, unit in _DURATION_PART.findall(text):
        if _SECONDS[unit] >= smallest:
            raise InputError('expected a duration with the larger unit first and each unit once, such as "1h30m"')
        smallest = _SECONDS[unit]
        total += float(number) * _SECONDS[unit]
    if total > DURATION_MAX:
        raise InputError(f'expected a duration of at most "36500d"{allowed}')
    return total


def format_duration(seconds: float) -> str:
    """The shortest spelling that ``parse_duration`` reads back, to the microsecond."""
    if math.isinf(seconds):
        return "infinity"
    left = round(seconds * 1_000_000)
    parts = []
    for unit, size in _MICROSECONDS.items():
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Bytes; K, M, G, T, P are powers of 1024. Raises InputError saying what is wanted."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise InputError(f'expected a size such as "{_nearest_size(text)}"')
    number, unit = found.groups()
    whole, _, fraction = number.partition(".")
    value = int(whole) * _BYTES[unit] + int(float(f"0.{fraction or 0}") * _BYTES[unit])
    if value > SIZE_MAX:
        raise InputError("expected a size below 8192P")
    return value


def format_size(size: int) -> str:
    """With the largest unit that leaves no remainder, so that ``parse_size`` reads the same number back."""
    for unit, factor in reversed(_BYTES.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _nearest_duration(text: str) -> str:
    cleaned = text.strip().lower()
    parts = _DURATION_LOOSE.findall(cleaned)
    rest = _DURATION_LOOSE.sub("", cleaned).strip(" ,")
    units = [unit if unit in _SECONDS else _OTHER_NAMES.get(unit, "" if unit else "s") for _, unit in parts]
    if not parts or rest or not all(units):
        return "90s"
    nearest = "".join(number + unit for (number, _), unit in zip(parts, units, strict=True))
    return nearest if _DURATION.fullmatch(nearest) else "90s"


def _nearest_size(text: str) -> str:
    found = _SIZE_LOOSE.fullmatch(text.strip())
    nearest = found[1] + found[2].upper() if found else ""
    return nearest if _SIZE.fullmatch(nearest) else "512M"
