"""When to ask the repository next. Pure."""

from __future__ import annotations

FIRST_DELAY_MAX = 30.0
_RETRY_FIRST = 10.0


def first_delay(interval: float, chance: float) -> float:
    """After a start; ``chance`` is a number from 0 to 1."""
    return min(interval, FIRST_DELAY_MAX) * chance


def next_delay(interval: float, failures: int, chance: float) -> float:
    """After a check, ``failures`` of which in a row went wrong; a tenth either way, so that hosts drift apart."""
    base = interval if not failures else min(interval, _RETRY_FIRST * 2.0 ** min(failures - 1, 20))
    return base * (0.9 + 0.2 * chance)
