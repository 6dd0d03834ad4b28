"""When a calendar timer is due: systemd's OnCalendar= expressions (systemd.time(7)), and cron's. Pure.

Between the words and the moments lies the switch to summer time and back. The rule is that of Debian's cron: what
names its hours runs once a day, at the first of two equal times, and right after the gap when its time is left out;
what runs in every hour goes by real time.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

from appliance.errors import InputError
from appliance.units.zone_changes import after_gap, next_in_real_time, second_pass_end

FindZone = Callable[[str], tzinfo | None]  # by name; None when there is no such zone

_WORDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
}
_WORDS |= {
    "anually": _WORDS["yearly"], "annually": _WORDS["yearly"], "biannually": _WORDS["semiannually"],
    "bi-annually": _WORDS["semiannually"], "semi-annually": _WORDS["semiannually"],
}  # fmt: skip
_CRON_WORDS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SECOND = 1_000_000  # in microseconds, in which the seconds of an expression count
_YEAR_MAX = 2199
_EXAMPLE = 'such as "daily", "Mon..Fri 09:00", "*:0/15", "*-*~01 18:00 Europe/Berlin" or cron\'s "0 9 * * 1-5"'


class Calendar(Protocol):
    """Moments, one after the other."""

    def next_after(self, moment: datetime) -> datetime | None:
        """The first one later than that (an aware time), in UTC; None when there is none any more."""


@dataclass(frozen=True)
class _Piece:
    """``start``, or ``start..stop``, each ``/repeat``. ``stop`` None: as far as the field goes, if it repeats."""

    start: int
    stop: int | None
    repeat: int


_Chain = tuple[_Piece, ...] | None  # None: any value


@dataclass(frozen=True)
class SystemdCalendar:
    """One OnCalendar= expression."""

    weekdays: frozenset[int]  # Monday is 0; empty: any
    years: _Chain
    months: _Chain
    days: _Chain
    from_month_end: bool
    hours: _Chain
    minutes: _Chain
    seconds: _Chain  # in microseconds
    zone: tzinfo

    @property
    def every_hour(self) -> bool:
        """Whether it goes by real time: see the head of this module."""
        return self.hours is None or all(_next_in(self.hours, hour) == hour for hour in range(24))

    def next_after(self, moment: datetime) -> datetime | None:
        """Calendar."""
        try:
            return self._next_after(moment.astimezone(UTC))
        except (OverflowError, ValueError):  # before year 1 or after 9999: no clock says so
            return None

    def _next_after(self, moment: datetime) -> datetime | None:
        if self.every_hour:
            return next_in_real_time(moment, self.zone, self._next_local)
        here = moment.astimezone(self.zone)
        local = here.replace(tzinfo=None, fold=0)
        if here.fold:  # the clock shows these times again
            local = second_pass_end(moment, self.zone) - timedelta(microseconds=1)
        while True:
            candidate = self._next_local(local)
            if candidate is None:
                return None
            real = after_gap(candidate, self.zone)
            if real > moment:
                return real
            local = candidate

    def _next_local(self, moment: datetime) -> datetime | None:
        """The first match after that one, by the clock on the wall."""
        moment += timedelta(microseconds=1)
        year, month, day = moment.year, moment.month, moment.day
        time = (moment.hour, moment.minute, moment.second * _SECOND + moment.microsecond)
        while True:
            wanted = _next_in(self.years, year)
            if wanted is None or wanted > _YEAR_MAX:
                return None
            if wanted != year:
                year, month, day, time = wanted, 1, 1, (0, 0, 0)
            wanted = _next_in(self.months, month)
            if wanted is None or wanted > 12:
                year, month, day, time = year + 1, 1, 1, (0, 0, 0)
                continue
            if wanted != month:
                month, day, time = wanted, 1, (0, 0, 0)
            wanted = self._next_day(year, month, day)
            if wanted is None:
                month, day, time = month + 1, 1, (0, 0, 0)
                if month == 13:
                    year, month = year + 1, 1
                continue
            if wanted != day:
                day, time = wanted, (0, 0, 0)
            found = self._next_time(*time)
            if found is not None:
                hour, minute, micros = found
                return datetime(year, month, day, hour, minute, micros // _SECOND, micros % _SECOND)
            day, time = day + 1, (0, 0, 0)  # one too many is no match: then comes the next month

    def _next_day(self, year: int, month: int, day: int) -> int | None:
        first_weekday, length = calendar.monthrange(year, month)
        chain = self.days
        if self.from_month_end and chain is not None:
            chain = tuple(
                _Piece(
                    length + 1 - (one.start if one.stop is None else one.stop), _mirrored_stop(one, length), one.repeat
                )
                for one in chain
            )
        while True:
            wanted = _next_in(chain, day)
            if wanted is None or wanted > length:
                return None
            if not self.weekdays or (first_weekday + wanted - 1) % 7 in self.weekdays:
                return wanted
            day = wanted + 1

    def _next_time(self, hour: int, minute: int, micros: int) -> tuple[int, int, int] | None:
        while True:
            wanted = _next_in(self.hours, hour)
            if wanted is None or wanted > 23:
                return None
            if wanted != hour:
                hour, minute, micros = wanted, 0, 0
            wanted = _next_in(self.minutes, minute)
            if wanted is None or wanted > 59:
                hour, minute, micros = hour + 1, 0, 0
                continue
            if wanted != minute:
                minute, micros = wanted, 0
            wanted = _next_in(self.seconds, micros)
            if wanted is not None and wanted < 60 * _SECOND:
                return hour, minute, wanted
            minute, micros = minute + 1, 0
            if minute == 60:
                hour, minute = hour + 1, 0


class CronCalendar:
    """One cron expression, through cronsim."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        import cronsim

        self._expression = expression
        self._zone = zone
        try:
            cronsim.CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
        except cronsim.CronSimError as exc:
            raise InputError(f"{str(exc).lower()} of the cron expression") from exc

    def next_after(self, moment: datetime) -> datetime | None:
        """Calendar."""
        import cronsim

        try:
            found = next(cronsim.CronSim(self._expression, moment.astimezone(self._zone)), None)
        except OverflowError:
            return None
        return None if found is None else found.astimezone(UTC)


def parse_calendar(text: str, find_zone: FindZone, *, zone: str | None = None) -> Calendar:
    """Either language. The zone: the one in the expression, else ``zone``, else the host's.

    Raises InputError that says what was found and what was expected.
    """
    words = text.split()
    try:
        if not words:
            raise InputError("it is empty")
        zone_word, rest = zone, words
        if len(words) in (2, 3, 4, 6, 7) and _looks_like_zone(words[-1]):  # five are cron's fields
            zone_word, rest = words[-1], words[:-1]
        found = find_zone(zone_word or "")
        if found is None:
            raise InputError(f'there is no time zone "{zone_word}"')
        cron = _CRON_WORDS.get(rest[0].lower()) if len(rest) == 1 else " ".join(rest) if len(rest) >= 5 else None
        if cron is not None and len(cron.split()) not in (5, 6):
            raise InputError("a cron expression has five fields")
        return CronCalendar(cron, found) if cron is not None else _Reader(" ".join(rest), found).read()
    except InputError as exc:
        raise InputError(f'found "{text}", {exc.message}; expected a time {_EXAMPLE}') from None


def earliest_after(calendars: Sequence[Calendar], moment: datetime) -> datetime | None:
    """The next one of all."""
    return min(filter(None, (one.next_after(moment) for one in calendars)), default=None)


def _looks_like_zone(word: str) -> bool:
    """Not a weekday, not a word for a date, and with letters: names of weekdays alone may end an expression."""
    if word.upper() == "UTC" or re.match("[A-Za-z]{3}.*/", word):
        return True
    return re.fullmatch("[A-Za-z][A-Za-z0-9_+-]+", word) is not None and not _begins_with_day(word) and "." not in word


def _begins_with_day(word: str) -> bool:
    return any(word.lower() in (day, day[:3]) or word.lower().startswith((day[:3] + "-", day + "-")) for day in _DAYS)


def _mirrored_stop(piece: _Piece, length: int) -> int | None:
    """``~start..stop`` counts down; a repetition without an end goes on to the last day."""
    return length + 1 - piece.start if piece.stop is not None else None


def _next_in(chain: _Chain, value: int) -> int | None:
    """The smallest value of the chain that is not below ``value``."""
    if chain is None:
        return value
    best: int | None = None
    for piece in chain:
        if piece.start >= value:
            found = piece.start
        elif piece.repeat:
            found = piece.start - (piece.start - value) // piece.repeat * piece.repeat
            if piece.stop is not None and found > piece.stop:
                continue
        else:
            continue
        best = found if best is None else min(best, found)
    return best


class _Reader:
    """From the words of an OnCalendar= expression to its numbers."""

    def __init__(self, text: str, zone: tzinfo) -> None:
        self._text = _WORDS.get(text.lower(), text)
        self._at = 0
        self._zone = zone

    def read(self) -> SystemdCalendar:
        if self._text.startswith("@"):
            return self._moment()
        weekdays = self._weekdays()
        years, months, days, from_end = self._date()
        hours, minutes, seconds = self._time()
        years = years and tuple(_whole_year(piece) for piece in years)
        years, months, days, hours, minutes, seconds = map(_tidy, (years, months, days, hours, minutes, seconds))
        _check("year", years, 1970, _YEAR_MAX)
        _check("month", months, 1, 12)
        _check("day", days, 1, 31, from_end=from_end)
        _check("hour", hours, 0, 23)
        _check("minute", minutes, 0, 59)
        _check("second", seconds, 0, 60 * _SECOND - 1)
        return SystemdCalendar(
            weekdays if len(weekdays) < 7 else frozenset(), years, months, days, from_end, hours, minutes, seconds,
            self._zone,
        )  # fmt: skip

    def _moment(self) -> SystemdCalendar:
        """``@SECONDS`` since 1970."""
        digits = self._text[1:]
        if not re.fullmatch("[0-9]{1,12}", digits):
            raise InputError("behind @ go seconds since 1970")
        try:
            it = datetime.fromtimestamp(int(digits), UTC)
        except (ValueError, OverflowError, OSError):
            raise InputError("that is too late") from None
        values = (it.year, it.month, it.day, it.hour, it.minute, it.second * _SECOND)
        years, months, days, hours, minutes, seconds = ((_Piece(value, None, 0),) for value in values)
        return SystemdCalendar(frozenset(), years, months, days, False, hours, minutes, seconds, UTC)

    def _left(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, what: str) -> bool:
        if self._text.startswith(what, self._at):
            self._at += len(what)
            return True
        return False

    def _fail(self) -> InputError:
        if self._at >= len(self._text):
            return InputError("something is missing at its end")
        return InputError(f'"{self._text[self._at :]}" does not belong there')

    def _weekdays(self) -> frozenset[int]:
        found: set[int] = set()
        since: int | None = None
        while True:
            match = re.compile("[A-Za-z]+").match(self._text, self._at)
            number = _weekday(match[0]) if match else None
            if match is None or number is None:
                if found or since is not None or match:
                    raise self._fail()
                return frozenset()
            self._at = match.end()
            if since is not None and since > number:
                raise InputError("the days of a range go from Monday to Sunday")
            found |= set(range(number if since is None else since, number + 1))
            if (self._take("..") or self._take("-")) and since is None:
                since = number
            elif self._take(","):
                since = None
            elif self._left() not in ("", " "):
                raise self._fail()
            if self._left() in ("", " "):
                if since is not None and since == number and self._text[self._at - 1] in ".-":
                    raise self._fail()
                self._take(" ")
                return frozenset(found)

    def _date(self) -> tuple[_Chain, _Chain, _Chain, bool]:
        begin = self._at
        if not self._left():
            return None, None, None, False
        first = self._chain()
        if self._left() in ("", ":"):
            self._at = begin  # that was a time
            return None, None, None, False
        from_end = self._between_dates()
        second = self._chain()
        if self._left() in ("", " "):
            self._take(" ")
            return None, first, second, from_end
        if from_end:
            raise self._fail()
        from_end = self._between_dates()
        third = self._chain()
        if self._left() not in ("", " "):
            raise self._fail()
        self._take(" ")
        return first, second, third, from_end

    def _between_dates(self) -> bool:
        if self._take("~"):
            return True
        if not self._take("-"):
            raise self._fail()
        return False

    def _time(self) -> tuple[_Chain, _Chain, _Chain]:
        zero = (_Piece(0, None, 0),)
        if not self._left():
            return zero, zero, zero
        hours = self._chain()
        if not self._take(":"):
            raise self._fail()
        minutes = self._chain()
        if not self._left():
            return hours, minutes, zero
        if not self._take(":"):
            raise self._fail()
        seconds = self._chain(unit=_SECOND)
        if self._left():
            raise self._fail()
        return hours, minutes, seconds

    def _chain(self, unit: int = 1) -> _Chain:
        if self._take("*"):
            return (_Piece(0, None, _SECOND),) if unit == _SECOND else None
        pieces = [self._piece(unit)]
        while self._take(","):
            pieces.append(self._piece(unit))
        return tuple(pieces)

    def _piece(self, unit: int) -> _Piece:
        start, stop, repeat = self._number(unit), None, 0
        if self._take(".."):
            stop, repeat = self._number(unit), unit
        if self._take("/"):
            repeat = self._number(unit)
            if not repeat:
                raise InputError("nothing repeats every 0")
        elif stop is not None and unit == _SECOND and start + repeat > stop:
            raise InputError("a range of seconds that is shorter than one")
        if self._left() not in ("", " ", ",", "-", "~", ":"):
            raise self._fail()
        return _Piece(start, stop, repeat)

    def _number(self, unit: int) -> int:
        pattern = r"[0-9]{1,9}(\.(?!\.)[0-9]*)?" if unit == _SECOND else "[0-9]{1,9}"
        match = re.compile(pattern).match(self._text, self._at)
        if match is None:
            raise self._fail()
        self._at = match.end()
        whole, _, fraction = match[0].partition(".")
        if not fraction:
            return int(whole) * unit
        return int(whole) * unit + (int(f"{fraction[:7]:0<7}") + 5) // 10  # systemd rounds the seventh digit


def _weekday(word: str) -> int | None:
    return next((number for number, day in enumerate(_DAYS) if word.lower() in (day, day[:3])), None)


def _whole_year(piece: _Piece) -> _Piece:
    def whole(year: int) -> int:
        return year + 2000 if year < 70 else year + 1900 if year < 100 else year

    return _Piece(whole(piece.start), None if piece.stop is None else whole(piece.stop), piece.repeat)


def _tidy(chain: _Chain) -> _Chain:
    """Ranges end at their last value; a range of one value is that value."""
    tidy = []
    for one in chain or ():
        stop = one.stop
        if stop is not None and stop >= one.start and one.repeat:
            stop -= (stop - one.start) % one.repeat
        tidy.append(_Piece(one.start, None, 0) if stop == one.start else _Piece(one.start, stop, one.repeat))
    return chain and tuple(tidy)


def _check(what: str, chain: _Chain, low: int, high: int, *, from_end: bool = False) -> None:
    """As systemd: what could never come, or never come again, is refused."""
    high -= 3 if from_end else 0
    unit = _SECOND if what == "second" else 1
    for piece in chain or ():
        for value in (piece.start, piece.start if piece.stop is None else piece.stop):
            if not low <= value <= high:
                bounds = f"{low} to {high // unit}"
                raise InputError(f"{value / unit:g} is no {what}: {bounds}")
        if piece.stop is not None:
            fits = piece.start + piece.repeat <= piece.stop
        elif from_end:
            fits = piece.start - piece.repeat >= low
        else:
            fits = piece.start + piece.repeat <= high
        if piece.repeat > high - low or not fits:
            raise InputError(f"the {what} does not repeat in its range")
