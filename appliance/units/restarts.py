"""What follows the end of a unit's process. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.schema import format_duration
from appliance.units.lifecycle import Event
from appliance.units.restart_section import RestartSection
from appliance.units.results import Result

_DOUBLINGS_MAX = 32  # beyond that the power would overflow a float one day
_QUIET_SECONDS_MIN = 10.0
_FLAPPING_SECONDS = 600.0
_FLAPPING_RESTARTS = 3
_ABORTED = frozenset({Result.SIGNAL, Result.CORE_DUMP})
_WELL = frozenset({Result.SUCCESS, Result.CONDITION})


@dataclass(frozen=True)
class Outcome:
    """The event that follows, why, and in how many seconds the restart is due."""

    event: Event
    reason: str
    delay_seconds: float = 0.0


def backoff_seconds(restart: RestartSection, failures: int, chance: float = 0.0) -> float:
    """The wait after that many ends in a row. ``chance``, from 0 to 1, is the part of the jitter that is added."""
    doublings = min(max(failures - 1, 0), _DOUBLINGS_MAX)
    return float(min(restart.delay * 2.0**doublings, restart.delay_max)) + restart.jitter * chance


def is_forgiven(restart: RestartSection, ready_seconds: float) -> bool:
    """Whether it was well for long enough that its earlier failures no longer count."""
    return ready_seconds >= max(restart.delay_max, _QUIET_SECONDS_MIN)


def restarts_within(restarts: Sequence[float], now: float) -> int:
    """How many of these restarts were lately."""
    return sum(1 for one in restarts if one > now - _FLAPPING_SECONDS)


def is_flapping(restarts: Sequence[float], now: float) -> bool:
    """Whether it comes and goes: three restarts within ten minutes."""
    return restarts_within(restarts, now) >= _FLAPPING_RESTARTS


def comes_back(policy: str, result: Result) -> bool:
    """Whether that policy starts a unit again after that end: the table of systemd.service(5)."""
    if result is Result.CONDITION:
        return False
    match policy:
        case "always":
            return True
        case "on-success":
            return result is Result.SUCCESS
        case "on-failure":
            return result is not Result.SUCCESS
        case "on-abnormal":
            return result not in (Result.SUCCESS, Result.EXIT_CODE)
        case "on-abort":
            return result in _ABORTED
        case "on-watchdog":
            return result is Result.WATCHDOG
        case _:
            return False


def decide_outcome(
    restart: RestartSection,
    policy: str,
    *,
    result: Result,
    reason: str,
    failures: int,
    starts: Sequence[float],
    now: float,
    forced: bool | None = None,
    chance: float = 0.0,
) -> Outcome:
    """``failures``: ends in a row, this one too. ``starts``: when, oldest first. ``forced``: goes before the policy."""
    if not (comes_back(policy, result) if forced is None else forced):
        return Outcome(Event.GONE_WELL if result in _WELL else Event.GAVE_UP, reason)
    limit = restart.limit
    if limit is not None:
        recent = sum(1 for start in starts if start > now - limit.interval)
        if recent >= limit.burst:
            words = f"{recent} starts within {format_duration(limit.interval)} (restart.limit)"
            return Outcome(Event.GAVE_UP, f"{reason}; given up after {words}")
    delay = backoff_seconds(restart, failures, chance)
    return Outcome(Event.GONE_BADLY, reason, delay)
