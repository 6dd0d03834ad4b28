"""Weekly maintenance windows. Pure; it is told the time, and zones are ``tzinfo`` objects.

A window begins when the clock on the wall of its zone shows its start for the first time that day (where the clock
jumps over it: right after the jump) and is open for its length of real time, past midnight or the end of the week.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_SECONDS = 86400.0
LENGTH_MAX = 7 * DAY_SECONDS
_TICK = timedelta(seconds=1)


@dataclass(frozen=True)
class Window:
    """``days``: Monday is 0; none: every day."""

    days: frozenset[int]
    start: time
    seconds: float
    zone: tzinfo

    def spans(self, now: float) -> Iterator[tuple[float, float]]:
        """Begin and end of those that may be open at that moment or begin within eight days, in order."""
        here = datetime.fromtimestamp(now, self.zone).date()
        before = int(self.seconds // DAY_SECONDS) + 2
        for number in range(-before, 10):
            day = here + timedelta(days=number)
            if not self.days or day.weekday() in self.days:
                begin = begins(day, self.start, self.zone)
                yield begin, begin + self.seconds


def begins(day: date, start: time, zone: tzinfo) -> float:
    """When the wall of that zone shows that time on that day: the first of two; in a gap, its end."""
    wall = datetime.combine(day, start)
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first.timestamp()
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    low, high = min(early, first) - _TICK, max(early, first)
    offset = low.astimezone(zone).utcoffset()
    while high - low > _TICK:
        middle = (low + (high - low) / 2).replace(microsecond=0)
        middle = max(middle, low + _TICK)
        if middle >= high:
            break
        if middle.astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high.timestamp()


def open_until(windows: Iterable[Window], now: float) -> float | None:
    """When the window that is open now shuts: overlapping and touching ones are one. None: none is open."""
    spans = sorted(span for window in windows for span in window.spans(now))
    end = max((until for begin, until in spans if begin <= now < until), default=None)
    for begin, until in spans:
        if end is not None and begin <= end:
            end = max(end, until)
    return end


def opens_at(windows: Sequence[Window], now: float) -> float | None:
    """When the next one begins; now, when one is open; None without windows."""
    if open_until(windows, now) is not None:
        return now
    return min((begin for window in windows for begin, _ in window.spans(now) if begin > now), default=None)


def window_of(
    days: Iterable[str], start: str, seconds: float, zone_name: str, find: Callable[[str], tzinfo | None]
) -> Window | None:
    """From the words of the settings; None when there is no such zone."""
    zone = find(zone_name)
    if zone is None:
        return None
    hour, _, minute = start.partition(":")
    return Window(frozenset(DAYS.index(day[:3].lower()) for day in days), time(int(hour), int(minute)), seconds, zone)
