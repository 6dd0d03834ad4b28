"""Moments as people write them: "10m ago", "today", "2026-11-22 07:45", "@1795333500". Pure: it is told what is now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from appliance.errors import InputError
from appliance.schema.quantities import parse_duration

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµ]+)")
_UNITS = {
    "us": 1e-6, "usec": 1e-6, "µs": 1e-6, "ms": 1e-3, "msec": 1e-3,
    "s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hr": 3600.0,
    "hour": 3600.0, "d": 86400.0, "day": 86400.0, "w": 604800.0, "week": 604800.0,
    "month": 30.44 * 86400, "y": 365.25 * 86400, "year": 365.25 * 86400,
}  # fmt: skip
_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?")
_SECONDS = re.compile(r"@?(\d{1,12}(?:\.\d{1,9})?)")
WANTED = 'expected a moment such as "10m ago", "today", "2026-11-22 07:45" or seconds since 1970'


def parse_moment(text: str, now: float) -> float:
    """Seconds since 1970; days and times without a zone are the host's. A mere duration is one ago.

    Raises InputError.
    """
    word = text.strip()
    try:
        found = _parse(word.lower(), now)
        if found is None:
            found = _parse_date(word)
        return min(max(found, 0.0), 250_000_000_000.0)
    except (ValueError, OverflowError, OSError):
        raise InputError(f'found "{text[:50]}", {WANTED}') from None


def _parse(word: str, now: float) -> float | None:
    if word == "now":
        return now
    if word in _DAYS:
        return _midnight(now, _DAYS[word]).timestamp()
    if found := _SECONDS.fullmatch(word):
        return float(found[1])
    if found := _TIME.fullmatch(word):
        return datetime.combine(_midnight(now, 0), _clock(found)).timestamp()
    sign, rest = -1.0, word
    if rest.startswith(("+", "-")) and not rest.endswith(" ago"):
        sign, rest = (1.0 if rest[0] == "+" else -1.0), rest[1:]
    rest = rest.removesuffix(" ago").strip()
    if not rest or _SPAN.sub("", rest).strip(" ,"):
        return None
    try:
        return now + sign * parse_duration(rest)
    except InputError:
        spans = [
            (float(number), unit.removesuffix("s") if len(unit) > 2 else unit) for number, unit in _SPAN.findall(rest)
        ]
        return now + sign * sum(number * _unit(unit) for number, unit in spans)


def _unit(word: str) -> float:
    if word not in _UNITS:
        raise ValueError(word)
    return _UNITS[word]


def _parse_date(word: str) -> float:
    word = re.sub(r"\s+utc$", "Z", word, flags=re.IGNORECASE)
    found = datetime.fromisoformat(word)
    return found.timestamp()  # without a zone: the host's


def _clock(found: re.Match[str]) -> time:
    return time(int(found[1]), int(found[2]), int(found[3] or 0), round(float(found[4]) * 1e6) if found[4] else 0)


def _midnight(now: float, days: int) -> datetime:
    """Of the host's own day, whose length a change of its zone's offset changes."""
    local = datetime.fromtimestamp(now, UTC).astimezone().replace(tzinfo=None)
    return local.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)
