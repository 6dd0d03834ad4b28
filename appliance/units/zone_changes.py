"""Where the clock on the wall jumps: gaps, and times that come twice. Pure; zones are ``tzinfo`` objects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

_NEAR = timedelta(days=2)  # no zone ever jumped further
_TICK = timedelta(microseconds=1)


def after_gap(local: datetime, zone: tzinfo) -> datetime:
    """The moment in UTC at which the wall shows that: the first of two, or the end of the gap in which it lies."""
    aware = local.replace(tzinfo=zone, fold=0)
    moment = aware.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local:
        return moment
    early = aware.replace(fold=1).astimezone(UTC)
    return _change_between(min(early, moment) - _TICK, max(early, moment), zone)


def second_pass_end(moment: datetime, zone: tzinfo) -> datetime:
    """``moment`` (UTC) shows a time for the second time: where on the wall new times begin again."""
    before = moment.astimezone(zone).replace(fold=0)
    change = _change_between(before.astimezone(UTC), moment, zone)
    return change.replace(tzinfo=None) + _offset(before.astimezone(UTC), zone)


def next_in_real_time(
    moment: datetime, zone: tzinfo, next_local: Callable[[datetime], datetime | None]
) -> datetime | None:
    """The first moment after that one at which the wall shows a match; one that comes twice is there twice."""
    while True:
        offset = _offset(moment, zone)
        local = next_local(moment.replace(tzinfo=None) + offset)
        if local is None:
            return None
        target = (local - offset).replace(tzinfo=UTC)
        end = min(target, moment + _NEAR)
        if _offset(end, zone) != offset:
            moment = _change_between(moment, end, zone) - _TICK  # what lies before it holds no match
            local = next_local(moment.replace(tzinfo=None) + _offset(moment + _TICK, zone))
            at_once = (moment + _TICK).astimezone(zone).replace(tzinfo=None)
            if local == at_once:
                return moment + _TICK
            moment += _TICK
        elif end == target:
            return target
        else:
            moment = max(end, target - _NEAR)


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _change_between(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """The first moment with an offset other than at ``low``; it is not after ``high``."""
    offset = _offset(low, zone)
    while high - low > _TICK:
        middle = low + (high - low) / 2
        if _offset(middle, zone) == offset:
            low = middle
        else:
            high = middle
    return high
