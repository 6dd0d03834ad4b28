"""What follows the end of a unit's process. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.schema import format_duration
from appliance.units.lifecycle import Event
from appliance.units.restart_section import RestartSection

_DOUBLINGS_MAX = 32  # beyond that the power would overflow a float one day
_QUIET_SECONDS_MIN = 10.0


@dataclass(frozen=True)
class Outcome:
    """The event that follows, why, and in how many seconds the restart is due."""

    event: Event
    reason: str
    delay_seconds: float = 0.0


def backoff_seconds(restart: RestartSection, failures: int) -> float:
    """The wait after that many ends in a row."""
    doublings = min(max(failures - 1, 0), _DOUBLINGS_MAX)
    return float(min(restart.delay * 2.0**doublings, restart.delay_max))


def is_forgiven(restart: RestartSection, ready_seconds: float) -> bool:
    """Whether it was well for long enough that its earlier failures no longer count."""
    return ready_seconds >= max(restart.delay_max, _QUIET_SECONDS_MIN)


def decide_outcome(
    restart: RestartSection, policy: str, *, well: bool, reason: str, failures: int, starts: Sequence[float], now: float
) -> Outcome:
    """``well``: it ended as it should. ``failures``: ends in a row, this one too. ``starts``: when, oldest first."""
    if policy == "no" or (policy == "on-failure" and well):
        return Outcome(Event.GONE_WELL if well else Event.GAVE_UP, reason)
    limit = restart.limit
    if limit is not None:
        recent = sum(1 for start in starts if start > now - limit.interval)
        if recent >= limit.burst:
            words = f"{recent} starts within {format_duration(limit.interval)} (restart.limit)"
            return Outcome(Event.GAVE_UP, f"{reason}; given up after {words}")
    delay = backoff_seconds(restart, failures)
    return Outcome(Event.GONE_BADLY, reason, delay)
