"""Values of systemd's directives: booleans, time spans, sizes, shares, limits. Pure."""

from __future__ import annotations

import math
import re

from appliance.errors import InputError
from appliance.schema import format_duration, format_size, quote

_YES = frozenset({"1", "yes", "y", "true", "t", "on"})
_NO = frozenset({"0", "no", "n", "false", "f", "off"})
_UNITS = {
    "": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
    "minutes": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0,
    "days": 86400.0, "w": 604800.0, "week": 604800.0, "weeks": 604800.0, "M": 2629800.0, "month": 2629800.0,
    "months": 2629800.0, "y": 31557600.0, "year": 31557600.0, "years": 31557600.0, "ms": 1e-3, "msec": 1e-3,
    "us": 1e-6, "usec": 1e-6, "µs": 1e-6, "μs": 1e-6,
}  # fmt: skip
_SPAN_PART = re.compile(r"\s*\+?(\d{1,18}(?:\.\d+)?|\.\d+)(?![.\d])\s*([A-Za-zµμ]*)")
_SIZE_PART = re.compile(r"\s*(\d{1,20})(?:\.(\d*))?\s*([EPTGMKB]?)")
_LETTERS = "BKMGTPE"
SPAN_MAX = 36500 * 86400.0
_BYTE_LIMITS = frozenset({"as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack"})


def boolean(text: str) -> bool:
    """yes, true, on, 1 and so on. Raises InputError."""
    word = text.lower()
    if word not in _YES | _NO:
        raise InputError(f"found {quote(text)}, expected a boolean such as yes or no")
    return word in _YES


def seconds(text: str, unit: float = 1.0) -> float:
    """``5min 20s``; a number alone counts in ``unit`` seconds. Raises InputError."""
    if text.strip() == "infinity":
        return math.inf
    at, total = 0, 0.0
    while text[at:].strip():
        found = _SPAN_PART.match(text, at)
        if found is None or found[2] not in _UNITS:
            raise InputError(f"found {quote(text)}, expected a time span such as 90 or 5min 20s")
        total += float(found[1]) * (_UNITS[found[2]] if found[2] else unit)
        at = found.end()
    if not at:
        raise InputError(f"found {quote(text)}, expected a time span such as 90 or 5min 20s")
    return min(total, SPAN_MAX)


def duration(value: float, *, infinity: bool = True) -> str:
    """As our files write it; what may not be endless there is as good as endless."""
    if math.isinf(value) and infinity:
        return "infinity"
    return format_duration(min(value, SPAN_MAX))


def size(text: str, base: int = 1024) -> int:
    """``1.5G``. Raises InputError."""
    at, total = 0, 0
    while text[at:].strip():
        found = _SIZE_PART.match(text, at)
        if found is None:
            break
        factor = base ** _LETTERS.index(found[3] or "B")
        total += int(found[1]) * factor + int(float(f"0.{found[2] or 0}") * factor)
        at = found.end()
    if not at or text[at:].strip() or total >= 1 << 63:
        raise InputError(f"found {quote(text)}, expected a size such as 512M")
    return total


def size_word(text: str, base: int = 1024) -> int | str:
    """As our files write a size, a share of the memory, or "infinity". Raises InputError."""
    if text == "infinity":
        return text
    if found := re.fullmatch(r"(\d{1,3})(\.\d{1,2})?(%|‰|‱)", text):
        share = float(found[1] + (found[2] or "")) / {"%": 1, "‰": 10, "‱": 100}[found[3]]
        return f"{share:.2f}".rstrip("0").rstrip(".") + "%"
    return format_size(size(text, base))


def integer(text: str, low: int, high: int) -> int:
    """Decimal, or with 0x, 0o, 0b in front. Raises InputError."""
    try:
        value = int(text, 0) if re.match("[-+]?0[xob]", text.lower()) else int(text)
    except ValueError:
        value = high + 1
    if not low <= value <= high or "_" in text or len(text) > 30:
        raise InputError(f"found {quote(text)}, expected a number from {low} to {high}")
    return value


def octal(text: str) -> str:
    """A mode. Raises InputError."""
    if not re.fullmatch("[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise InputError(f"found {quote(text)}, expected an octal mode such as 0755")
    return f"{int(text, 8):04o}"


def limit(name: str, text: str) -> int | str:
    """The value of ``LimitNOFILE=`` and its kin, soft and hard. Raises InputError."""
    soft, colon, hard = text.partition(":")
    first = _limit_part(name, soft.strip())
    second = _limit_part(name, hard.strip()) if colon else first
    if first != second:
        return f"{first}:{second}"
    return int(first) if first.isdecimal() else first


def _limit_part(name: str, text: str) -> str:
    if text == "infinity":
        return text
    if name == "nice" and text[:1] in ("+", "-"):
        return text
    if name in ("cpu", "rttime"):
        return duration(seconds(text, 1.0 if name == "cpu" else 1e-6))
    if name in _BYTE_LIMITS:
        return str(size(text))
    return str(integer(text, 0, (1 << 63) - 1))
