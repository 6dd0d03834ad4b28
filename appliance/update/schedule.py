"""When to ask the repository next. Pure. What it does to a server of 10,000 hosts: docs/publishing.md, and a test."""

from __future__ import annotations

FIRST_DELAY_MAX = 3600.0
_STEP_DELAY_MAX = 30.0
_RETRY_FIRST, _RETRY_GROWTH = 30.0, 4.0  # slower growth: more retries of more hosts at one time


def first_delay(interval: float, chance: float, *, stepped: bool = False) -> float:
    """After a start; ``chance`` is a number from 0 to 1.

    Over the whole interval: after a power cut all hosts start at once, and shall not ask at once. ``stepped``: this
    start ended a trial, which no two hosts do at one moment, and the next step may follow.
    """
    return min(interval, _STEP_DELAY_MAX if stepped else FIRST_DELAY_MAX) * chance


def next_delay(interval: float, failures: int, chance: float) -> float:
    """After a check, ``failures`` of which in a row went wrong.

    A tenth either way when all is well, so that hosts drift apart; up to half sooner after a failure, because whatever
    failed may have failed for all of them at one moment.
    """
    if not failures:
        return interval * (0.9 + 0.2 * chance)
    return min(interval, _RETRY_FIRST * _RETRY_GROWTH ** min(failures - 1, 20)) * (0.5 + 0.5 * chance)
